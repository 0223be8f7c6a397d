"""Every reader of data sets, bodies and networks on damaged copies of a good file: success, or one line that says why.

`python tests/scripts/read_mutations.py 10000 1` with the project and tests/ in PYTHONPATH tries more of them.
"""

import json

import conftest
import pytest
from mutations import mutations

COUNT = 200
FORMATS = ("npz", "npy", "checkpoint", "pickle", "CDF", "HDF5", "MATLAB")


@pytest.fixture(scope="module")
def tried() -> list[dict[str, object]]:
    """What came of the copies, reader by reader; the program itself fails on what is no line for the user."""
    return [json.loads(line) for line in conftest.run_script("read_mutations.py", COUNT, 0).splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_files_are_read_or_refused_in_one_line(tried, kind):
    found = [reader for reader in tried if reader["reader"].startswith(kind)]
    assert found
    for reader in found:
        assert reader["read"] + reader["refused"] == COUNT
        assert reader["refused"] > COUNT // 4  # they are damaged
        assert reader["slowest_s"] < 30
        assert reader["grown_mb"] < 2000


@pytest.mark.slow
def test_no_reader_is_forgotten(tried):
    assert {reader["reader"].split(",")[0] for reader in tried} == {*FORMATS}


def test_the_same_seed_damages_in_the_same_way_and_each_copy_in_another():
    whole = bytes(range(256)) * 8
    first, again, other = (list(mutations(whole, 100, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert len({*first}) > 95 and whole not in first
    assert {*map(type, first)} == {bytes}
    assert list(mutations(b"", 20, 0))  # nothing is no obstacle
