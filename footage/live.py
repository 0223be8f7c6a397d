"""What a camera sees, worked on and shown while it is fresh."""

import time
from collections.abc import Callable, Iterator

import numpy as np

from footage.window import Window
from utils.prefetch import ahead
from utils.structures import Frame

OLDEST = 0.5  # s since a frame was taken, after which it is not shown any more
_EXPECTED = 0.4  # s, after which it should be shown; the rest is for work that takes longer than the last


class Live:
    """Frames of a camera on their way to the window; those that would come too late are left out, and counted.

    Args:
        age: seconds of a frame -> for how long it is taken, s
        stride: by which the numbers of wanted frames differ
        clock: seconds

    Attributes:
        window: what shows them, None where there is no display
        dropped: wanted frames, between those that were worked on, that were left out
        ages: s, of each frame that was shown, or could have been on a display
        late: frames that were worked on, and too old to be shown
    """

    def __init__(
        self, age: Callable[[float], float], stride: int = 1, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.age, self.stride, self.clock = age, stride, clock
        self.window: Window | None = None
        self.dropped = self.late = 0
        self.ages: list[float] = []
        self.showing = 0.0  # s, which that takes

    def frames(self, prepared: Iterator[Frame]) -> Iterator[Frame]:
        """The frames, each prepared while the one before is worked on, if it is not too old when that is done.

        Otherwise it is left out for one that is prepared then.
        """
        work, is_newest, before = 0.0, True, None
        for frame in ahead(prepared):
            if not is_newest and self.age(float(frame["time"])) + work > _EXPECTED:
                is_newest = True
                continue
            began, number = self.clock(), int(frame["index"])
            self.dropped += 0 if before is None else (number - before) // self.stride - 1
            yield frame
            work, is_newest, before = self.clock() - began, False, number

    def show(self, rgb: np.ndarray, seconds: float) -> None:
        """Show the picture (H,W,3) uint8 of a frame, if it is fresh; KeyboardInterrupt once the window is closed."""
        began = self.clock()
        if self.age(seconds) + self.showing > OLDEST:
            self.late += 1
            return
        if self.window:
            self.window.show(rgb)
        self.showing = self.clock() - began
        self.ages.append(self.age(seconds))

    def close(self) -> None:
        """Take the window away."""
        if self.window:
            self.window.close()

    def facts(self) -> dict[str, object]:
        """What was left out, and how old frames were when they were shown, for summary.json."""
        median, largest = (round(float(of(self.ages)), 3) if self.ages else None for of in (np.median, np.max))
        return {
            "frames_dropped": self.dropped,
            "frames_too_late": self.late,
            "age_median_s": median,
            "age_largest_s": largest,
        }

    def warnings(self) -> list[str]:
        """What was left out, in words."""
        lines = []
        if self.dropped:
            lines.append(f"frames that the camera gave and that were left out for newer ones: {self.dropped}")
        if self.late:
            lines.append(f"frames that were not shown, as they were older than {OLDEST} s by then: {self.late}")
        return lines
