"""Where the project is, and what cannot come with it (README.md of this folder)."""

import os
from pathlib import Path

TESTS = Path(__file__).parent
PROJECT = TESTS.parent
DEMO = PROJECT / "data" / "demo"  # the free body and its networks
PARITY = Path(os.environ.get("BOA_PARITY", PROJECT.parent / "shared" / "parity"))
CLIPS = Path(os.environ.get("BOA_CLIPS", PROJECT.parent / "shared" / "data"))
