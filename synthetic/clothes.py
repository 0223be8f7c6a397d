"""Clothes for the free body, as one colour for each vertex: which vertices a garment covers, and two families of it.

The outfits of the lab and those of the street share the garments' cuts, but neither colours nor patterns, so that a
model trained on the one has not seen the other. Colours are RGB in 0-255.
"""

import numpy as np

from synthetic.body import Body
from utils.joints import SMPL24, VERTEX21

SKINS = np.array([[232, 200, 175], [205, 150, 120], [150, 100, 75], [95, 62, 45]], np.float32)
HAIRS = np.array([[25, 20, 18], [70, 45, 25], [190, 160, 100], [120, 120, 120]], np.float32)
SLEEVE_ENDS = (0.66, 0.33, 0.19)  # m from the middle of the body in T pose: long, short, none
LEG_ENDS = (0.93, 0.93, 0.45)  # fraction of the way from the body's origin to its soles: trousers, trousers, shorts
SHOE_START = 0.945  # likewise


class Wardrobe:
    """Which vertices of a body are hair, eyes, shirt, trousers and shoes; masks are (V,) bool."""

    def __init__(self, body: Body):
        self.body, self.rest = body, body.template
        x, y, z = self.rest.T
        main_joint = np.array(SMPL24)[body.weights.argmax(axis=1)]
        eye_height, eye_front = self.rest[body.vertex_ids[VERTEX21.index("leye")], 1:]

        def moved_by(*names: str) -> np.ndarray:
            sided = [f"{side}_{name}" for name in names for side in ("left", "right")]
            return np.isin(main_joint, [*names, *sided])

        head = moved_by("head")
        ear = (np.abs(x) > 0.075) & (y < eye_height + 0.03)
        back = z < self.rest[head, 2].mean() - 0.005
        self.hair = head & ~ear & ((y > eye_height + 0.065) | (back & (y > eye_height - 0.07)))
        beside_nose = np.abs(np.abs(x) - 0.03) < 0.014
        self.eyes = (np.abs(z - eye_front) < 0.02) & (np.abs(y - eye_height) < 0.008) & beside_nose
        self.arms = moved_by("shoulder", "elbow")
        self.trunk = moved_by("pelvis", "spine1", "spine2", "spine3", "collar")
        self.lower = moved_by("pelvis", "spine1", "hip", "knee") & (np.abs(x) < 0.4)
        self.downwards = y / y.min()
        self.feet = moved_by("ankle", "foot") & (self.downwards > SHOE_START)
        self.waist = y[moved_by("spine1")].mean()

    def dress(self, rng: np.random.Generator, shirt: np.ndarray, legs: np.ndarray, shoes: np.ndarray) -> np.ndarray:
        """A person of random skin, hair and cut of clothes in the colours (V,3) or (3,) given -> (V,3) float32."""
        return self._worn(rng, shirt, legs, shoes)[0]

    def _worn(
        self, rng: np.random.Generator, shirt: np.ndarray, legs: np.ndarray, shoes: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `dress`, with the vertices (V,) bool that the shirt and the trousers cover."""
        x, y, _ = self.rest.T
        colours = np.tile(SKINS[rng.integers(len(SKINS))] * rng.uniform(0.9, 1.1), (len(x), 1)).astype(np.float32)
        colours[self.hair] = HAIRS[rng.integers(len(HAIRS))]
        colours[self.eyes] = (60, 50, 45)
        waist = self.waist - rng.uniform(0.02, 0.12)
        covers_shirt = ((self.trunk & (y >= waist)) | self.arms) & (np.abs(x) < rng.choice(SLEEVE_ENDS))
        covers_legs = self.lower & (y < waist) & (self.downwards < rng.choice(LEG_ENDS))
        for covers, colour in ((covers_shirt, shirt), (covers_legs, legs), (self.feet, shoes)):
            colours[covers] = np.broadcast_to(colour, colours.shape)[covers]
        return np.clip(colours, 5, 250), covers_shirt, covers_legs

    def lab_outfit(self, rng: np.random.Generator) -> np.ndarray:
        """Plain cloth in any colour, paler or darker in smooth waves over the body -> colours (V,3)."""

        def cloth() -> np.ndarray:
            directions, phases = rng.normal(0, 6, (3, 3)), rng.uniform(0, 2 * np.pi, 3)
            waves = np.sin(self.rest @ directions.astype(np.float32) + phases.astype(np.float32))
            colour = rng.uniform(30, 200) + rng.normal(0, 25, 3)
            return colour.astype(np.float32) + np.float32(rng.uniform(0, 18)) * waves

        return self.dress(rng, cloth(), cloth(), cloth())

    def street_outfit(self, rng: np.random.Generator) -> np.ndarray:
        """Stripes, checks, prints and sleeves of another colour, sharp edges -> colours (V,3)."""
        x, y, z = self.rest.T

        def vivid() -> np.ndarray:
            return np.clip(rng.uniform(30, 220) + rng.normal(0, 35, 3), 10, 240)

        pitch = rng.uniform(40, 90)
        stripes = np.sin(y * pitch) > 0
        patterns = [
            np.zeros(len(x), bool),
            stripes,
            stripes ^ (np.sin(x * pitch) > 0),
            (np.abs(x) < 0.09) & (np.abs(y - 0.01) < 0.09) & (z > 0.05),
            np.abs(x) > 0.19,
        ]
        shirt = np.where(patterns[rng.integers(len(patterns))][:, None], vivid(), vivid())
        return self.dress(rng, shirt, vivid(), vivid())

    def wild_outfit(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Any cloth, loose or tight, with folds, and any hair -> colours (V,3), thickness of what is worn (V,) m."""
        x, y, z = self.rest.T
        waves = np.sin(self.rest @ rng.normal(0, [[8], [8], [35]], (3, 3)).astype(np.float32).T)  # (V,3), fine last

        def cloth() -> np.ndarray:
            base, other = rng.uniform(8, 245) + rng.normal(0, 45, (2, 3))
            if rng.random() < 0.5:
                other = rng.uniform(8, 245, 3)
            pitch = rng.uniform(25, 110)
            pattern = [
                np.zeros(len(x), bool),
                np.sin(y * pitch) > rng.uniform(-0.8, 0.8),
                np.sin(x * pitch) > rng.uniform(-0.8, 0.8),
                (np.sin(y * pitch) > 0) ^ (np.sin(x * pitch) > 0),
                (np.abs(x) < 0.1) & (np.abs(y - rng.uniform(-0.1, 0.1)) < rng.uniform(0.02, 0.12)) & (z > 0.05),
                np.abs(x) > rng.uniform(0.1, 0.3),
                waves.sum(axis=1) > rng.uniform(0.3, 1.2),
            ][rng.choice(7, p=[0.5, 0.1, 0.05, 0.05, 0.1, 0.1, 0.1])]
            folds = 1 + rng.uniform(0, 0.25) * waves[:, 2:]
            return np.where(pattern[:, None], other, base) * folds

        colours, shirt, legs = self._worn(rng, cloth(), cloth(), cloth())
        if rng.random() < 0.3:  # a cap, or hair of any colour
            colours[self.hair] = rng.uniform(5, 240, 3)
        folds = 1 + 0.4 * waves[:, 0]
        thickness = shirt * rng.exponential(0.01) * folds + legs * rng.exponential(0.012) * folds
        thickness = np.where(self.hair, rng.exponential(0.015), thickness)
        return colours, np.clip(thickness, 0, 0.05)
