"""What a number can be traced by: versions, device, commit, command line, hashes of the files that were read."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "learn2learn", "opencv-python-headless", "av", "mediapipe")


def provenance(device: torch.device, inputs: Mapping[str, Path], images: Iterable[Path] = ()) -> dict[str, Any]:
    """What summary.json says of a run's origin.

    Args:
        device: that computes
        inputs: what is read, by the part it plays: a file, or a folder with the files in it
        images: of a data set, which count by their names and sizes, since they are too many to be read twice
    """
    files = {part: {"file": str(path), "sha256": hash_of(path)} for part, path in inputs.items()}
    return {
        "command": sys.argv,
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **_versions()},
        "processor": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "inputs": files | ({"images": {"sha256": _hash_of_sizes(images)}} if images else {}),
    }


def hash_of(path: Path) -> str | None:
    """SHA-256 of a file, or of all files in a folder with their names; None where there is nothing."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted(file for file in path.iterdir() if file.is_file()):
        digest.update(os.fsencode(f"{file.name}\0{hash_of(file)}\0"))
    return digest.hexdigest()


def _hash_of_sizes(images: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for image in images:
        size = image.stat().st_size if image.exists() else None
        digest.update(os.fsencode(f"{image.name}\0{size}\0"))
    return digest.hexdigest()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _commit() -> str | None:
    """The commit of the project, with a + where files are changed; None where that is not known."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = [*git, "status", "--porcelain", "--untracked-files=no"]
        changed = subprocess.run(status, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changed else "")


def differences(begun: Mapping[str, Any], now: Mapping[str, Any], free: Collection[str]) -> list[str]:
    """In what a run differs from one that was begun, by their `options` and `provenance`.

    Args:
        begun, now: what is compared
        free: the options that may differ
    """
    found = [
        f"--{name} {value}, not {now['options'].get(name)}"
        for name, value in begun["options"].items()
        if name not in free and value != now["options"].get(name)
    ]
    then, here = begun["provenance"], now["provenance"]
    found += [
        f"another file of {part}: {file.get('file', part)}"
        for part, file in then["inputs"].items()
        if file["sha256"] != here["inputs"].get(part, {}).get("sha256")
    ]
    found += [
        f"{package} {number}" for package, number in then["versions"].items() if number != here["versions"].get(package)
    ]
    found += [f"{then[name]} as {name}" for name in ("processor", "threads") if then[name] != here[name]]
    return found
