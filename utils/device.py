"""Which device to compute on, and whether there is a screen."""

import os
import sys

import torch

from utils.errors import UserError


def choose_device(wanted: str) -> torch.device:
    """The device of `--device`, or a GPU where there is one; UserError when it is not there."""
    device = torch.device(wanted or ("cuda" if torch.cuda.is_available() else "cpu"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch finds no GPU here; use --device cpu")
    torch.backends.cudnn.deterministic = True
    return device


def has_screen() -> bool:
    """Whether a window can be shown; elsewhere than on Linux it is taken for granted."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
