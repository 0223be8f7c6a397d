"""Damaged videos, images and keypoints are read as far as they can be, or refused in one line."""

import ctypes
import logging
import sys
from pathlib import Path

import pytest
from damaged_footage import MAKERS, damaged, make_case, outcome

COUNT = 200
LIMIT = 1024**2  # kB that reading a damaged file may ask for


def status(name: str) -> int:
    """What Linux says of this process's memory, in kB: VmRSS now, VmHWM at most since `start_peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def start_peak() -> int:
    """Measure VmHWM from here on (tests before have a peak of their own), and say what is held now.

    What tests before have freed goes back to Linux, or it could be taken again without being seen.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's account of the memory")
def test_a_peak_is_seen_after_one_that_was_higher():
    kept = [bytearray(2**16) for _ in range(5000)]  # 300 MB of a size that is not given back when it is free
    last, kept = kept.pop(), None
    before = start_peak()
    assert status("VmHWM") - before < 50 * 1024
    again = [bytearray(2**16) for _ in range(3300)]
    assert status("VmHWM") - before > 150 * 1024
    del again, last


@pytest.mark.filterwarnings("ignore")  # of Pillow, for what it overlooks
@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    case = make_case(name, tmp_path / "case")
    before = start_peak() if sys.platform == "linux" else None
    good = case.file.read_bytes()
    assert outcome(case, good) == "read"
    outcomes = [outcome(case, data) for data in list(damaged(case, COUNT, seed=0))]
    assert len(set(outcomes)) > 1  # damage is noticed
    assert before is None or status("VmHWM") - before < LIMIT
