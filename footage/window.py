"""A window for what a camera sees, where there is a display."""

import logging
from typing import Any

import numpy as np
from PIL import Image

from utils.device import has_screen

log = logging.getLogger("boa")


def open_window(title: str) -> "Window | None":
    """A window, or None where none can be shown, which is said."""
    if not has_screen():
        log.info("there is no display to show the camera on; overlay.mp4 gets all the same")
        return None
    try:
        import tkinter
    except ImportError:
        log.warning("the camera is not shown: Python has no tkinter (on Debian: apt-get install python3-tk)")
        return None
    try:
        return Window(tkinter.Tk(), title)
    except tkinter.TclError as error:
        log.warning("the camera is not shown: the display cannot be used (%s)", error)
        return None


class Window:
    """Shows pictures while the program works; closing it ends the program as Ctrl-C does.

    Args:
        root: of tkinter
        title: of the window
    """

    def __init__(self, root: Any, title: str) -> None:
        import tkinter

        self.root, self.is_open = root, True
        self.root.title(title)
        self.root.protocol("WM_DELETE_WINDOW", self._closed)
        self.label = tkinter.Label(root)
        self.label.pack()

    def _closed(self) -> None:
        self.is_open = False

    def show(self, rgb: np.ndarray) -> None:
        """Show a picture (H,W,3) uint8; KeyboardInterrupt once the user has closed the window."""
        from PIL import ImageTk

        self.picture = ImageTk.PhotoImage(Image.fromarray(rgb), master=self.root)  # tkinter keeps no reference
        self.label.configure(image=self.picture)
        self.root.update()
        if not self.is_open:
            raise KeyboardInterrupt

    def close(self) -> None:
        """Take the window away."""
        self.root.destroy()
