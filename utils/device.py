"""Which device to compute on, and whether there is a screen."""

import os
import sys

import torch

from utils.errors import UserError


def choose_device(wanted: str) -> torch.device:
    """The device of `--device`, by default a GPU where there is one.

    Raises UserError when it is none that is supported, or not there.
    """
    try:
        device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
        supported = device.type in ("cpu", "cuda")
        if supported:
            torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].split("torch ")[-1]
        raise UserError(f"--device {wanted}: {_available()} ({reason})") from error
    if not supported:
        raise UserError(f"--device {wanted} is not supported; {_available()}")
    return device


def _available() -> str:
    """What `--device` can be here."""
    count = torch.cuda.device_count()
    gpus = ", ".join(["cuda", *(f"cuda:{number}" for number in range(1, count))]) if count else ""
    return f"it can be cpu or {gpus} here" if gpus else "PyTorch finds no GPU here; use --device cpu"


def set_up_gpus(tf32: bool) -> None:
    """Let GPUs take the algorithms that give the same numbers each time, and round as `--tf32` says."""
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32


def has_screen() -> bool:
    """Whether a window can be shown; elsewhere than on Linux it is taken for granted."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
