"""overlay.mp4: the body on the person, and from the side."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from footage.live import Live
from utils.renderer import VIDEO_SAMPLING, VideoWriter, count_frames, draw_in_image, segment_length, side_view
from utils.resume import State

HEIGHT = 720  # px of the video at most
PANEL = 320  # px, width of the view from the side


class Drawn(NamedTuple):
    """A body in an image: vertices (V,3) m, cam (3,) of the crop, its center (2,) px and side, px."""

    vertices: np.ndarray
    cam: np.ndarray
    center: np.ndarray
    side: float

    def as_tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
        """The same for a state (utils.resume.State)."""
        return *map(torch.tensor, (self.vertices, self.cam, self.center)), self.side

    @classmethod
    def of_tensors(cls, vertices: torch.Tensor, cam: torch.Tensor, center: torch.Tensor, side: float) -> "Drawn":
        """The other way round."""
        return cls(vertices.numpy(), cam.numpy(), center.numpy(), side)


class OverlayVideo:
    """The video, drawn by a thread, a frame at a time, while the next one is adapted to.

    To go on, it is copied up to the segment before the one at hand, since an encoder cannot go on in its middle, and
    the frames from there on are drawn again.

    Args:
        file: the video
        rate: frames/s
        faces: (F,3) of the body
        live: shows each frame of a camera as soon as it is drawn; None: they are not a camera's

    Attributes:
        recent: the bodies of the last frames, not all of which are surely on disk
    """

    def __init__(self, file: Path, rate: float, faces: np.ndarray, live: Live | None = None) -> None:
        self.file, self.rate, self.faces, self.live = file, rate, faces, live
        self.kept = file.with_name(f".{file.stem}.kept{file.suffix}")  # what it is copied from
        self.video: VideoWriter | None = None
        self.drawer = ThreadPoolExecutor(1)
        self.drawing: Future[None] | None = None
        self.recent: list[Drawn | None] = []
        self.count = 0
        self.began: float | None = None  # s, when a camera gave the first frame

    def add(self, rgb: np.ndarray, body: Drawn | None, seconds: float) -> None:
        """Append an image (H,W,3) uint8 with the body, if there is one; of a camera's, it is shown at its time, s."""
        self._remember(body)
        if self.live is None:
            self._go_on(self._append, rgb, body)
            return
        picture = self._draw(rgb, body)
        self.began = seconds if self.began is None else self.began
        self._go_on(self._write, picture, round((seconds - self.began) * self.rate))
        self.live.show(picture, seconds)

    def add_again(self, images: Iterator[np.ndarray]) -> None:
        """Append the images of the bodies in `recent` when a run goes on; no more are taken."""
        for body, rgb in zip(self.recent, images, strict=False):
            self._go_on(self._append, rgb, body)

    def state(self) -> State:
        """How many frames there are, and the last bodies (utils.resume.Stateful)."""
        self._wait()
        return {"count": self.count, "recent": [body and body.as_tensors() for body in self.recent]}

    def load_state(self, state: State) -> None:
        """Go on from there, once the last bodies are drawn again (`add_again`)."""
        self.count = state["count"]
        self.recent = [body and Drawn.of_tensors(*body) for body in state["recent"]]
        self._copy(self.count - len(self.recent))

    def close(self) -> None:
        """Draw the last frame, finish the video and take the window away."""
        with ExitStack() as steps:  # done from the last to the first
            if self.video:
                steps.callback(self.video.close)
            steps.callback(self._wait)
            steps.callback(self.drawer.shutdown)
            if self.live:
                steps.callback(self.live.close)

    def discard(self) -> None:
        """Take away what the video was copied from."""
        self.kept.unlink(missing_ok=True)

    def _remember(self, body: Drawn | None) -> None:
        """Keep the bodies of the segment at hand and of the one before, which may not be on disk."""
        segment = segment_length(self.rate)
        if self.count % segment == 0:
            del self.recent[:-segment]
        self.recent.append(body)
        self.count += 1

    def _copy(self, frames: int) -> None:
        if not frames:
            return
        # what a run leaves that was killed, perhaps while it copied, and what one that was stopped
        part = self.file.with_name(f".{self.file.stem}.part{self.file.suffix}")
        sources = [file for file in (part, self.kept, self.file) if file.exists() and count_frames(file) >= frames]
        if not sources:
            raise ValueError(f"{self.file} has lost frames")
        sources[0].replace(self.kept)
        self.video = VideoWriter(self.file, self.rate)
        self.video.copy(self.kept, frames)

    def _go_on(self, step: Callable[..., None], *arguments: object) -> None:
        """Let the thread do a step."""
        self._wait()  # frames do not pile up
        self.drawing = self.drawer.submit(step, *arguments)

    def _wait(self) -> None:
        drawing, self.drawing = self.drawing, None
        if drawing:
            drawing.result()

    def _append(self, rgb: np.ndarray, body: Drawn | None) -> None:
        self._write(self._draw(rgb, body))

    def _write(self, picture: np.ndarray, number: int | None = None) -> None:
        self.video = self.video or VideoWriter(self.file, self.rate, numbered=self.live is not None)
        self.video.add(picture, number)

    def _draw(self, rgb: np.ndarray, body: Drawn | None) -> np.ndarray:
        """A frame of the video: the image, and beside it, on white, the body from the side."""
        image, zoom = shrunk(rgb)
        side = min(PANEL, len(image))
        panel = np.full((len(image), side, 3), 255, np.uint8)
        if body:
            draw_in_image(image, body.vertices, self.faces, body.cam, body.center * zoom, body.side * zoom)
            top = (len(image) - side) // 2
            view = side_view(body.vertices, self.faces, body.cam, side, supersampling=VIDEO_SAMPLING)
            panel[top : top + side] = view
        return np.hstack([image, panel])


def shrunk(rgb: np.ndarray) -> tuple[np.ndarray, float]:
    """A copy of an image, at most HEIGHT px high, and by how much it is shrunk."""
    zoom = min(1.0, HEIGHT / len(rgb))
    if zoom == 1:
        return rgb.copy(), 1.0
    return cv2.resize(rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA), zoom
