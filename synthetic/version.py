"""What a rendered folder was made of: a file `complete` in it names the renderer, the body and the seed.

A folder that is rendered appears under its name when the last file is in it, so that one that lacks `complete`, or
whose `complete` says something else, is never taken for what would be rendered now.
"""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from synthetic.body import body_files
from utils.errors import UserError
from utils.files import save_text

# Raise it with every change that alters an image or a label: streams and sources are then rendered again.
# 2: the standing foot is kept until the other is lower, so that rounding no longer chooses the place of a person
# (1: what has no version, rendered before there were any)
RENDERER_VERSION = 2

MADE = "complete"
# all that a rendered folder holds, with what is derived of it; what holds anything else is not replaced
_CONTENTS = {MADE, "3dpw_vid", "imageFiles", "images", "h36m_train.npz", "h36m_train_bank.npz", ".DS_Store"}


def made_of(body_dir: Path, seed: int | None = None) -> dict[str, str]:
    """What would be rendered now: the renderer's version, a hash of the body's files, and the seed of a stream.

    Raises UserError when the body in `body_dir` is missing.
    """
    digest = hashlib.sha256()
    for file in body_files(body_dir):
        digest.update(file.read_bytes())
    parts = {"renderer": str(RENDERER_VERSION), "body": digest.hexdigest()[:16]}
    return parts if seed is None else {**parts, "seed": str(seed)}


def differences(folder: Path, wanted: dict[str, str]) -> list[str]:
    """In which of the `wanted` parts the folder differs, in words; empty when it is as it would be rendered now."""
    found = _note(folder)
    if found is None:
        return ["it is not complete"]
    return [
        f"{name} {found.get(name, 'unknown')} instead of {value}"
        for name, value in wanted.items()
        if found.get(name) != value
    ]


def _note(folder: Path) -> dict[str, str] | None:
    """What `complete` says; None when there is none that can be read."""
    try:
        lines = (Path(folder) / MADE).read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return dict(line.partition(" ")[::2] for line in lines)


def is_current(folder: Path, body_dir: Path, seed: int | None = None) -> bool:
    """Whether a folder is complete and holds what renderer and body make now, of the seed if one is given.

    Args:
        folder: of a stream or of a labelled source, as `render_stream` and `render_source` write it
        body_dir: folder with the free body, as data/demo
        seed: None: any

    Raises UserError when the body is missing.
    """
    return not differences(folder, made_of(body_dir, seed))


def check_current(folder: Path, body_dir: Path, made_by: str) -> None:
    """Raise UserError when a rendered folder is missing or not as it would be rendered now.

    Args:
        folder, body_dir: as of `is_current`
        made_by: the command that renders it, which is named with the seed of what is there
    """
    why = differences(folder, made_of(body_dir))
    if not Path(folder).exists():
        raise UserError(f"{folder} is missing; run `{made_by}`")
    if why:
        seed = (_note(folder) or {}).get("seed", "0")
        command = made_by if seed == "0" else f"{made_by} --seed {seed}"
        raise UserError(f"{folder} is not what would be rendered now ({'; '.join(why)}); run `{command}`")


def render(folder: Path, wanted: dict[str, str], write: Callable[[Path], None]) -> None:
    """Call `write` with an empty folder, which then takes the place of `folder`: whole or not at all.

    Raises UserError when the place cannot be written or holds something that was not rendered.
    """
    folder = Path(folder)
    try:
        strange = sorted({entry.name for entry in folder.iterdir()} - _CONTENTS) if folder.exists() else []
        if strange:
            raise UserError(f"{folder} holds {strange[0]}, which was not rendered; move it, or set SYNTHETIC_ROOT")
        folder.parent.mkdir(parents=True, exist_ok=True)
        # a name of its own, so that two programs may render the same at a time
        prefix = f".{folder.name}."
        with tempfile.TemporaryDirectory(prefix=prefix, dir=folder.parent, ignore_cleanup_errors=True) as temporary:
            part = Path(temporary) / folder.name
            write(part)
            save_text(part / MADE, "".join(f"{name} {value}\n" for name, value in wanted.items()))
            if differences(folder, wanted):  # else another program was faster
                if folder.exists():
                    folder.replace(Path(temporary) / "old")
                part.replace(folder)
    except OSError as error:
        remedy = "set SYNTHETIC_ROOT to a folder that can be written"
        raise UserError(f"{folder} cannot be written ({error}); {remedy}") from error
