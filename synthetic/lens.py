"""What a recording adds to what a camera sees."""

import cv2
import numpy as np

from synthetic.scene import grain


class Lens:
    """Blur, resolution, colours, noise and compression of a recording, drawn once."""

    def __init__(self, rng: np.random.Generator):
        self.resolution = rng.uniform(0.3, 0.8) if rng.random() < 0.25 else 1.0
        self.sigma = rng.uniform(0.3, 0.7) if rng.random() < 0.7 else rng.uniform(0.7, 1.8)
        self.streak = _streak(rng) if rng.random() < 0.15 else None
        self.tint = (rng.uniform(0.75, 1.2) * rng.uniform(0.87, 1.13, 3)).astype(np.float32)
        self.contrast, self.saturation = rng.uniform(0.65, 1.25), rng.uniform(0.3, 1.15)
        if rng.random() < 0.04:
            self.saturation = 0.0
        self.noise = rng.exponential(4)
        self.quality = int(rng.uniform(25, 95)) if rng.random() < 0.5 else None

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        """Image (H,W,3) float32 0-255 -> the same as it is recorded."""
        height, width = image.shape[:2]
        image = cv2.GaussianBlur(image, (0, 0), self.sigma)
        if self.streak is not None:
            image = cv2.filter2D(image, -1, self.streak)
        if self.resolution < 1:
            small = (int(width * self.resolution), int(height * self.resolution))
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        # contrast about the middle, saturation about the grey of each pixel
        mix = np.full((3, 3), (1 - self.saturation) / 3) + self.saturation * np.eye(3)
        mix = np.diag(self.tint) @ mix * self.contrast
        shift = np.full((3, 1), 120 * (1 - self.contrast))
        image = cv2.transform(image, np.hstack([mix, shift]).astype(np.float32))
        image += grain(rng, image.shape, self.noise)
        if self.quality is not None:
            coded = cv2.imencode(
                ".jpg", np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, self.quality]
            )[1]
            image = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.float32)
        if self.resolution < 1:
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        return image


def _streak(rng: np.random.Generator) -> np.ndarray:
    """Kernel of a camera that moves along a line while it exposes."""
    length = 2 * int(rng.integers(1, 6)) + 1
    kernel = np.zeros((length, length), np.float32)
    angle = rng.uniform(0, np.pi)
    reach = np.array([np.cos(angle), np.sin(angle)]) * (length // 2)
    start, end = (tuple(np.rint(length // 2 + sign * reach).astype(int).tolist()) for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0)
    return kernel / kernel.sum()
