"""Damaged copies of a file, as disks, downloads and ill will make them; the same ones for the same seed."""

from collections.abc import Iterator

import numpy as np

# numbers that sizes, counts and offsets break at, in bytes of either order
_EDGES = [value.to_bytes(8, order) for value in (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1) for order in ("little", "big")]


def mutations(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield `count` damaged copies of `data`: bits flipped, numbers replaced, pieces cut out, doubled or moved."""
    rng = np.random.default_rng(seed)
    kinds = (_flip, _overwrite, _edge, _truncate, _delete, _repeat, _swap)
    for _ in range(count):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 5)):
            kinds[rng.integers(len(kinds))](damaged, rng)
        yield bytes(damaged)


def _place(damaged: bytearray, rng: np.random.Generator) -> int:
    # half of them near the start, where headers are
    end = max(len(damaged), 1)
    return int(rng.integers(min(end, 512) if rng.random() < 0.5 else end))


def _flip(damaged: bytearray, rng: np.random.Generator) -> None:
    if damaged:
        damaged[_place(damaged, rng)] ^= 1 << rng.integers(8)


def _overwrite(damaged: bytearray, rng: np.random.Generator) -> None:
    start = _place(damaged, rng)
    noise = rng.bytes(int(rng.integers(1, 9)))
    damaged[start : start + len(noise)] = noise


def _edge(damaged: bytearray, rng: np.random.Generator) -> None:
    start, width = _place(damaged, rng), int(rng.choice([1, 2, 4, 8]))
    number = _EDGES[rng.integers(len(_EDGES))]
    damaged[start : start + width] = number[:width] if rng.random() < 0.5 else number[-width:]


def _truncate(damaged: bytearray, rng: np.random.Generator) -> None:
    del damaged[_place(damaged, rng) :]


def _delete(damaged: bytearray, rng: np.random.Generator) -> None:
    start = _place(damaged, rng)
    del damaged[start : start + int(rng.integers(1, 65))]


def _repeat(damaged: bytearray, rng: np.random.Generator) -> None:
    start = _place(damaged, rng)
    piece = damaged[start : start + int(rng.integers(1, 65))]
    damaged[start:start] = piece


def _swap(damaged: bytearray, rng: np.random.Generator) -> None:
    first, second, width = _place(damaged, rng), _place(damaged, rng), int(rng.integers(1, 33))
    pieces = damaged[first : first + width], damaged[second : second + width]
    damaged[first : first + width], damaged[second : second + width] = pieces[1], pieces[0]
