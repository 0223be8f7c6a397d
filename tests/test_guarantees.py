"""What docs/guarantees.md promises is tested by what it names."""

import re

from places import PROJECT, TESTS


def test_every_promise_names_a_test_that_is_there():
    text = (PROJECT / "docs" / "guarantees.md").read_text()
    tests = set(
        re.findall(r"^def (test_\w+)", "".join(file.read_text() for file in TESTS.glob("test_*.py")), re.MULTILINE)
    )
    promises = [line for line in re.split(r"\n\s*- ", text.replace("\n  ", " ")) if not line.startswith("#")]
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests
    assert all("`test_" in promise for promise in promises)
