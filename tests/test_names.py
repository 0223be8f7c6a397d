"""Names and texts that can be written, whatever they hold."""

import os

import pytest

from utils.files import safe_name, save_text


@pytest.mark.parametrize("name", ["walk_000001", "Übung 动作 0001.jpg", "a b\u3000c", "👩‍🚀", "%s {} \\n"])
def test_text_stays_as_it_is(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", [os.fsdecode(b"\xb6\xaf_1.jpg"), "\ud800", "a\nb", "\x1b[31mred", "\x00"])
def test_what_is_no_text_is_escaped_to_a_name_that_differs(name):
    safe = safe_name(name)
    assert safe != name and safe.encode() and safe.isprintable()


def test_a_text_is_written_whatever_it_holds(tmp_path):
    save_text(tmp_path / "a.csv", "动作," + os.fsdecode(b"\xb6\xaf") + "\n")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "动作,\\udcb6\\udcaf\n"
