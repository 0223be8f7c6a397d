"""The command line: what is refused at the door, and what --help says."""

import conftest
import pytest

import boa
from flags import modes
from streams import FOOTAGE_DEFAULTS, SYNTHETIC_LEARNING_RATES, WILD_LEARNING_RATES
from utils.options import arguments_of


def refused(capsys, *flags: str) -> str:
    """What the command line says of flags that it does not take."""
    with pytest.raises(SystemExit) as caught:
        boa.read_options(["--name", "x", *flags])
    assert caught.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "-1"], "--lr must be at least 0"),
        (["--metalr", "nan"], "--metalr must be a number"),
        (["--s2dloss_weight", "inf"], "--s2dloss_weight must be a number"),
        (["--ema_decay", "7"], "--ema_decay must be at most 1"),
        (["--beta1", "2"], "--beta1 must be below 1"),
        (["--beta2", "1"], "--beta2 must be below 1"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
        (["--seed", "-1"], "--seed must be at least 0"),
        (["--stride", "0"], "--stride must be at least 1"),
        (["--motionloss_weight", "-0.1"], "--motionloss_weight must be at least 0"),
    ],
)
def test_a_number_outside_of_its_limits_is_refused(capsys, flags, message):
    assert message in refused(capsys, *flags)


@pytest.mark.parametrize("flag", ["--list_people", "--smooth 0", "--person 2", "--start 3", "--export glb"])
def test_a_flag_of_footage_is_refused_without_a_video(capsys, flag):
    assert f"{flag.split()[0]} does nothing here: it is for --video" in refused(capsys, *flag.split())


@pytest.mark.parametrize("flag", ["--save_predictions", "--paper_compat", "--dataset_name wild", "--batch_size 2"])
def test_a_flag_of_data_sets_is_refused_with_a_video(capsys, flag):
    said = refused(capsys, "--video", "clip.mp4", *flag.split())
    assert f"{flag.split()[0]} does nothing here: it is for --dataset_name" in said


@pytest.mark.parametrize("flag", ["--lr 1e-5", "--first_order", "--labelloss_weight 0", "--prev_n 3"])
def test_a_flag_of_the_step_is_refused_when_nothing_is_adapted(capsys, flag):
    said = refused(capsys, "--method", "frozen", *flag.split())
    assert f"{flag.split()[0]} does nothing here: it is for --method boa" in said


def test_a_flag_that_is_given_overrules_the_defaults_of_its_stream():
    options = boa.read_options(["--name", "x", "--dataset_name", "synthetic", "--lr", "1e-5"])
    assert (options.lr, options.metalr) == (1e-5, SYNTHETIC_LEARNING_RATES["metalr"])
    free = boa.read_options(["--name", "x", "--video", "a.mp4"])
    assert all(getattr(free, name) == value for name, value in FOOTAGE_DEFAULTS.items()) and not free.has_source
    own = boa.read_options(["--name", "x", "--video", "a.mp4", "--model_file", "own.pt"])
    assert own.lr == WILD_LEARNING_RATES["lr"] and own.has_source
    assert boa.read_options(["--name", "x"]).lr == 3e-6


def test_the_free_network_of_joints_is_not_adapted_to_a_video_unless_it_is_asked_for(capsys):
    for video in ("0", "a.mp4"):
        footage = ["--name", "x", "--video", video]
        assert boa.read_options(footage).method == "frozen"
        assert boa.read_options([*footage, "--model_file", "data/demo/footage.pt"]).method == "boa"  # of images
        adapting = boa.read_options([*footage, "--method", "boa", "--lr", "1e-5"])
        assert adapting.lr == 1e-5 and not adapting.has_source
        assert "--lr does nothing here: it is for --method boa" in refused(capsys, "--video", video, "--lr", "1e-5")
    assert boa.read_options(["--name", "x", "--dataset_name", "multiview"]).method == "boa"


@pytest.mark.parametrize(
    "flags",
    [
        ["--retrieval", "--sample_num", "2", "--upper_level_mixtrain", "0", "--per_sequence", "--workers", "2"],
        ["--preset", "dynaboa", "--first_order", "0", "--expname", "y", "--soft_reset", "0.5"],
        ["--method", "frozen", "--dataset_name", "synthetic"],
        ["--video", "a.mp4", "--method", "boa", "--dynamic_boa", "1", "--passes", "2", "--smooth", "0"],
    ],
)
def test_a_command_line_of_all_options_gives_the_same_options(flags):
    options = boa.read_options(["--name", "x", *flags])
    assert boa.read_options(arguments_of(options, modes(options))) == options


def test_help_shows_the_defaults_that_each_stream_will_use(capsys):
    with pytest.raises(SystemExit):
        boa.read_options(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for shown in ("default: 3e-06; synthetic: 3e-05", "wild: 6e-05", "multiview: 0.0; --video: 0.0"):
        assert shown in text


def test_help_comes_from_any_folder_and_loads_no_vision_library(tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['boa.py', '--help']\n"
        f"sys.path.insert(0, {str(conftest.PROJECT)!r})\n"
        f"try: runpy.run_path({str(conftest.PROJECT / 'boa.py')!r}, run_name='__main__')\n"
        "except SystemExit: print([name for name in ('torchvision', 'learn2learn') if name in sys.modules])"
    )
    result = conftest.run("-c", code)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr
