"""The project's pages in Markdown, taken apart: commands, headings, links, blocks of code."""

import re
import shlex
from pathlib import Path

from places import PROJECT

PAGES = [
    *(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md", "tests/README.md")),
    *sorted((PROJECT / "docs").glob("*.md")),
]
PROGRAMS = ("python", "pip", "make", "source", "export")


def without_fences(text: str) -> str:
    """The text without what is fenced by ```."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> list[str]:
    """Every heading's words, without the marks of code."""
    found = re.findall(r"^#+ (.+)$", without_fences(page.read_text()), flags=re.MULTILINE)
    return [heading.replace("`", "") for heading in found]


def anchor(heading: str) -> str:
    """What a heading is called in a link, as GitHub does: lower case, blanks as dashes, other signs left out."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links(page: Path) -> list[str]:
    """Targets of all links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", without_fences(page.read_text()))


def section(page: Path, heading: str) -> str:
    """The text under a heading, up to the next of its level."""
    level, rest = re.search(rf"^(#+) {re.escape(heading)}$(.*)", page.read_text(), re.MULTILINE | re.DOTALL).groups()
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def commands(text: str) -> list[list[str]]:
    """The command lines in the text's indented blocks and marks of code, split as a shell does, without comments."""
    joined = re.sub(r"\\\n\s*", " ", without_fences(text))
    lines = re.findall(r"^ {4,}(\S.*)$|`([^`\n]+)`", joined, flags=re.MULTILINE)
    lines = [(block or marked).strip() for block, marked in lines]
    return [shlex.split(line, comments=True) for line in lines if line.split()[0] in PROGRAMS and " " in line]


def flags(text: str) -> set[str]:
    """Every flag that the text names."""
    return set(re.findall(r"(?<![\w-])--[a-z]\w*(?![\w-])", text))


def python_blocks(page: Path) -> list[str]:
    """The blocks that are fenced as Python."""
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)
