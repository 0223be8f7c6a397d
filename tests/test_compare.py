"""Runs side by side: the table, the plot and the video, from folders that boa.py leaves."""

import av
import conftest
import cv2
import numpy as np
import pytest
from places import DEMO

import boa
import compare
import streams
from synthetic import stream, version
from synthetic.lab import Lab
from utils.errors import UserError

FRAMES = 3


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A base model with random weights, frozen and adapted, on a short stream."""
    import torch

    from models.hmr import HMR, load_mean_params

    folder = tmp_path_factory.mktemp("compare")
    made_of = version.made_of(DEMO)
    version.render(folder / "stream", made_of, lambda output: stream.write_stream(output, DEMO, "test", frames=FRAMES))
    version.render(folder / "source", made_of, lambda output: stream.write_source(output, Lab(DEMO), 4))
    torch.manual_seed(0)
    torch.save({"model": HMR(load_mean_params(streams.DEMO_ASSETS.mean_params), 18).state_dict()}, folder / "base.pt")
    street = streams.STREAMS["synthetic"]
    target = street.target._replace(images=folder / "stream", annotations=folder / "stream" / "3dpw_vid")
    source = street.source._replace(images=folder / "source", annotations=folder / "source" / "h36m_train.npz")
    patch = pytest.MonkeyPatch()
    patch.setitem(streams.STREAMS, "synthetic", street._replace(target=target, source=source))
    common = ["--dataset_name", "synthetic", "--model_file", str(folder / "base.pt"), "--expdir", str(folder)]
    boa.main(["--name", "frozen", "--method", "frozen", "--save_predictions", *common])
    boa.main(["--name", "adapted", "--first_order", "--lr", "1e-4", "--save_predictions", *common])
    yield folder
    patch.undo()


def test_the_table_has_both_runs_with_the_change_in_percent(runs, capsys):
    compare.main([str(runs / "frozen"), str(runs / "adapted")])
    lines = capsys.readouterr().out.splitlines()
    frozen, adapted = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert (frozen[0], adapted[0]) == ("frozen", "adapted")
    before, after = float(frozen[1]), float(adapted[1].split()[0])
    assert f"({100 * (after / before - 1):+.0f} %)" in adapted[1]
    assert (runs / "adapted" / "comparison.md").read_text().splitlines() == lines
    assert cv2.imread(str(runs / "adapted" / "comparison.png")).std() > 10


def test_the_video_has_a_frame_for_each_of_the_stream_and_four_pictures_in_it(runs):
    compare.main([str(runs / "frozen"), str(runs / "adapted"), "--video"])
    with av.open(str(runs / "adapted" / "comparison.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == FRAMES * stream.SEQUENCES
    height, width = frames[0].shape[:2]
    assert width == 4 * height
    crop, frozen, _, side = np.split(frames[0].astype(int), 4, axis=1)
    assert np.abs(frozen - crop).mean() > 1  # a body is drawn over the input
    assert (side[-20:] > 240).mean() > 0.5  # and stands on white from the side


def test_runs_on_other_frames_are_not_compared(runs, tmp_path):
    for file in ("summary.json", "scores.csv"):
        (tmp_path / file).write_text((runs / "frozen" / file).read_text().replace("image_00001", "image_00009"))
    with pytest.raises(UserError, match="are not about the same frames"):
        compare.main([str(runs / "frozen"), str(tmp_path)])


def test_a_folder_without_a_run_is_one_line(tmp_path):
    result = conftest.run("compare.py", tmp_path)
    assert result.returncode == 2
    assert "summary.json is missing; it is written by `python boa.py`" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_video_without_predictions_says_how_to_get_them(runs, tmp_path):
    for file in ("summary.json", "scores.csv"):
        (tmp_path / file).write_text((runs / "frozen" / file).read_text())
    with pytest.raises(UserError, match=r"predictions\.npz is missing; run boa\.py with --save_predictions"):
        compare.main([str(runs / "frozen"), str(tmp_path), "--video"])
