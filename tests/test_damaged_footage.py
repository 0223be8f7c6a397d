"""Damaged videos, images and keypoints are read as far as they can be, or refused in one line."""

import logging
import resource

import pytest
from damaged_footage import MAKERS, damaged, make_case, outcome

COUNT = 200


@pytest.mark.filterwarnings("ignore")  # of Pillow, for what it overlooks
@pytest.mark.parametrize("name", MAKERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name, tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    case = make_case(name, tmp_path / "case")
    good = case.file.read_bytes()
    assert outcome(case, good) == "read"
    outcomes = [outcome(case, data) for data in list(damaged(case, COUNT, seed=0))]
    assert len(set(outcomes)) > 1  # damage is noticed
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2 * 1024**2  # kB
