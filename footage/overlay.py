"""overlay.mp4: the body on the person, and from the side."""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from footage.window import Window
from utils.renderer import VIDEO_SAMPLING, VideoWriter, draw_in_image, side_view

HEIGHT = 720  # px of the video at most
PANEL = 320  # px, width of the view from the side


class Drawn(NamedTuple):
    """A body in an image: vertices (V,3) m, cam (3,) of the crop, its center (2,) px and side, px."""

    vertices: np.ndarray
    cam: np.ndarray
    center: np.ndarray
    side: float


class OverlayVideo:
    """The video, drawn by a thread, a frame at a time, while the next one is adapted to.

    Args:
        file: the video
        rate: frames/s
        faces: (F,3) of the body
        window: shows each frame as soon as it is drawn
    """

    def __init__(self, file: Path, rate: float, faces: np.ndarray, window: Window | None = None) -> None:
        self.video, self.faces, self.window = VideoWriter(file, rate), faces, window
        self.drawer = ThreadPoolExecutor(1)
        self.drawing: Future[np.ndarray] | None = None

    def add(self, rgb: np.ndarray, body: Drawn | None) -> None:
        """Append an image (H,W,3) uint8 with the body, if there is one."""
        self._wait()  # frames do not pile up
        self.drawing = self.drawer.submit(self._append, rgb, body)
        if self.window:
            self.window.show(self._wait())

    def close(self) -> None:
        """Draw the last frame, finish the video and take the window away."""
        with ExitStack() as steps:  # done from the last to the first
            steps.callback(self.video.close)
            steps.callback(self._wait)
            steps.callback(self.drawer.shutdown)
            if self.window:
                steps.callback(self.window.close)

    def _wait(self) -> np.ndarray | None:
        drawing, self.drawing = self.drawing, None
        return drawing.result() if drawing else None

    def _append(self, rgb: np.ndarray, body: Drawn | None) -> np.ndarray:
        """Append a frame: the image, and beside it, on white, the body from the side -> the frame."""
        image, zoom = _shrunk(rgb)
        side = min(PANEL, len(image))
        panel = np.full((len(image), side, 3), 255, np.uint8)
        if body:
            draw_in_image(image, body.vertices, self.faces, body.cam, body.center * zoom, body.side * zoom)
            top = (len(image) - side) // 2
            view = side_view(body.vertices, self.faces, body.cam, side, supersampling=VIDEO_SAMPLING)
            panel[top : top + side] = view
        shown = np.hstack([image, panel])
        self.video.add(shown)
        return shown


def _shrunk(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of an image, at most HEIGHT px high, and by how much it is shrunk."""
    zoom = min(1.0, HEIGHT / len(rgb))
    if zoom == 1:
        return rgb.copy(), 1.0
    return cv2.resize(rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), zoom
