"""Long runs. For 20,000 frames: `PYTHONPATH=.:tests python tests/scripts/soak.py stream 20000`, and `footage`."""

import conftest
import pytest

MEMORY, SPEED = 30.0, 0.1  # MB, and share, by which a run of 20,000 frames may change


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "footage"])
def test_a_long_run_stays_as_small_and_as_fast(kind):
    lines = conftest.run_script("soak.py", kind, 600).splitlines()
    samples = [list(map(float, line.split()[1:])) for line in lines if line.startswith("sample: ")]
    frames, memory, files, _ = zip(*samples, strict=True)
    assert frames[-1] == 600
    assert max(files) - min(files) <= 1  # an image may be open that is read ahead
    half = len(samples) // 2  # in the first half libraries take what they keep
    assert memory[-1] - memory[half] < MEMORY / 2


def test_the_rows_of_a_run_take_little_memory():
    import tracemalloc

    from utils.scores import Rows

    labels = {"sequence": "downtown_walking_00", "person": 1, "activity": ""}
    tracemalloc.start()
    rows = Rows()
    for index in range(5000):
        scores = {
            name: index + 0.5 for name in ("mpjpe", "pampjpe", "pve", "ume", "accel", "pck", "auc", "reprojection")
        }
        rows.append({**labels, "image": f"imageFiles/downtown_walking_00/image_{index:05d}.jpg", **scores})
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / len(rows) < 700  # bytes: 20,000 frames take less than half of what they may
    assert rows[4999]["image"].endswith("04999.jpg") and [*rows[0]][:2] == ["sequence", "person"]
    assert len(rows[4990:]) == 10
