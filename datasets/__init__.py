"""From a name on the command line to frames."""

import logging
from pathlib import Path

import config
from datasets import h36m, mpi_inf_3dhp, pw3d
from datasets.base import CroppedFrames

log = logging.getLogger("boa")

_READERS = {
    "pw3d": pw3d.open_stream,
    "pw3d_ph": pw3d.open_ph,
    "mpi_inf_3dhp": mpi_inf_3dhp.open_stream,
    "h36m": h36m.open_stream,
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


def open_source(source: config.Recording) -> CroppedFrames:
    """Open a labelled source; that of footage is rendered first where it is missing.

    Raises UserError when it is missing, damaged or empty.
    """
    if source == config.WILD and not source.annotations.exists():
        from synthetic import wild  # the renderer, which only this needs

        log.info("the labelled source is rendered into %s, this once", source.images)
        wild.build_source(source.images, config.DEMO)
    remedy = f"run `{source.made_by}` (README, Data), or do without by --labelloss_weight 0"
    return h36m.open_source(source.images, source.annotations, remedy)


def choose_stream(dataset_name: str, video: str, model_file: str) -> config.Stream:
    """The stream of `--dataset_name`, or of `--video`: with the user's body model if it is there, else the free one."""
    if not video:
        return config.STREAMS[dataset_name]
    return config.FREE_FOOTAGE if missing_for_footage(model_file) else config.FOOTAGE


def missing_for_footage(model_file: str) -> list[Path]:
    """The files of SMPL, and of a base model for it where none is named, that are not there."""
    assets = config.ASSETS
    models = [assets.smpl_model_dir / f"SMPL_NEUTRAL{suffix}" for suffix in (".npz", ".pkl")]
    body = next((model for model in models if model.exists()), models[-1])
    base_model = [] if model_file else [assets.base_model]
    needed = [body, assets.mean_params, assets.regressor_extra, assets.gmm, *base_model]
    return [file for file in needed if not file.exists()]
