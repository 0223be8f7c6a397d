"""From a name on the command line to frames."""

import config
from datasets import h36m, mpi_inf_3dhp, pw3d
from datasets.base import CroppedFrames

_READERS = {
    "pw3d": pw3d.open_stream,
    "pw3d_ph": pw3d.open_ph,
    "mpi_inf_3dhp": mpi_inf_3dhp.open_stream,
    "folder": pw3d.open_folder,
}


def open_stream(name: str) -> tuple[CroppedFrames, list[str]]:
    """Open the stream of a `--dataset_name` -> its frames, and the sequences of its protocol that are not there.

    Raises UserError when the files are missing, damaged or empty.
    """
    stream = config.STREAMS[name]
    target = stream.target
    remedy = f"run `{target.made_by}` (README, Data)"
    if target == config.PW3D:
        remedy += "; without any download, `--dataset_name synthetic` runs now"
    return _READERS[stream.reader](target.images, target.annotations, remedy)


def open_source(name: str) -> CroppedFrames:
    """Open the labelled source that goes with a `--dataset_name`; UserError when it is missing, damaged or empty."""
    source = config.STREAMS[name].source
    remedy = f"run `{source.made_by}` (README, Data), or do without by --labelloss_weight 0"
    return h36m.open_source(source.images, source.annotations, remedy)
