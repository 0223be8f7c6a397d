"""Whether this machine can install the requirements, and the command that gets what it lacks.

    python3 tools/check_system.py              # a line for each thing that is missing
    python3 tools/check_system.py --install    # gets it by apt-get, where that is there and the user is root

It uses the standard library alone, since it runs before anything is installed.
"""

from __future__ import annotations  # so that an older Python can say that it is too old

import argparse
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

PYTHONS = ((3, 11), (3, 12))


def missing_packages() -> dict[str, tuple[str, ...]]:
    """What is missing -> the packages of Debian and Ubuntu that have it."""
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    checks = {
        "a C compiler, since learn2learn is compiled": (_compiles, ("gcc", "libc6-dev")),
        "the headers of Python, since learn2learn is compiled": (_has_headers, (f"{python}-dev",)),
        "what python -m venv needs": (_has_venv, (f"{python}-venv",)),
    }
    return {name: packages for name, (is_there, packages) in checks.items() if not is_there()}


def _compiles() -> bool:
    """Whether the compiler that setuptools would call is there, with the headers of C."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        return False
    test = [*compiler, "-x", "c", "-fsyntax-only", "-"]
    return subprocess.run(test, input=b"#include <stdlib.h>\n", capture_output=True).returncode == 0


def _has_headers() -> bool:
    return (Path(sysconfig.get_path("include")) / "Python.h").exists()


def _has_venv() -> bool:
    return importlib.util.find_spec("ensurepip") is not None


def install(packages: list[str]) -> bool:
    """Get the packages by apt-get -> whether that was possible; nobody but root may."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    commands = (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", *packages])
    return all(subprocess.run(command).returncode == 0 for command in commands)


def main() -> None:
    """Say what is missing, or get it; exit code 1 where something still is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="get what is missing by apt-get, as root")
    options = parser.parse_args()
    if sys.version_info[:2] not in PYTHONS:
        sys.exit(f"Python 3.11 or 3.12 is needed, and this is {sys.version.split()[0]}: make venv PYTHON=python3.12")
    missing = missing_packages()
    packages = [package for names in missing.values() for package in names]
    if not missing or (options.install and install(packages)):
        return
    for name in missing:
        print(f"missing: {name}", file=sys.stderr)
    sys.exit(f"on Debian and Ubuntu: sudo apt-get install {' '.join(packages)}")


if __name__ == "__main__":
    main()
