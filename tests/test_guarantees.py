"""What docs/guarantees.md promises is tested by what it names."""

import re

import pages
from places import PROJECT, TESTS

TESTED = set(
    re.findall(r"^def (test_\w+)", "".join(file.read_text() for file in TESTS.glob("test_*.py")), re.MULTILINE)
)


def test_every_promise_names_a_test_that_is_there():
    text = (PROJECT / "docs" / "guarantees.md").read_text()
    promises = [line for line in re.split(r"\n\s*- ", text.replace("\n  ", " ")) if not line.startswith("#")]
    assert set(re.findall(r"`(test_\w+)`", text)) <= TESTED
    assert all("`test_" in promise for promise in promises)


def test_every_promise_of_the_readme_does_so_too():
    table = re.findall(
        r"^\| (\S.*) \| (.*) \|$", pages.section(PROJECT / "README.md", "What is guaranteed"), re.MULTILINE
    )
    assert table
    assert {name.strip("`") for _, name in table} <= TESTED
