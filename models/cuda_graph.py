"""A step on a GPU as one launch: it is thousands of small kernels, which Python starts more slowly than they run."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.structures import Frame

if TYPE_CHECKING:
    from models.learner import Learner, Past

Terms = dict[str, Tensor]
Step = Callable[[Frame, "Past | None", Frame | None, "Learner"], Terms]

_STEPS_BEFORE = 3  # of the same shapes, before they are recorded: libraries choose and load their kernels


class CudaGraphs:
    """Plays a step as it was recorded, kernel by kernel, so that its numbers are the same.

    Steps on tensors of the same shapes share a recording, into whose inputs theirs are copied. Where only some persons
    of a batch have a frame before, a step runs as ever. What a recording changes, weights, Adam's moments, the teacher,
    must stay where it is in memory: between steps it may be changed in place only.
    """

    def __init__(self) -> None:
        self.met: Counter[tuple] = Counter()
        self.recordings: dict[tuple, _Recording] = {}

    def __call__(
        self, step: Step, frame: Frame, past: "Past | None", source: Frame | None, learner: "Learner"
    ) -> Terms:
        """What `step` returns of these inputs; it is overwritten by the next step."""
        parts = {"frame": frame, "past": past and past.frames, "source": source}
        device = learner.body.v_template.device
        given = {name: _on(device, part) for name, part in parts.items() if part is not None}
        shapes = tuple((part, name, value.shape) for part, values in given.items() for name, value in values.items())
        if shapes not in self.recordings:
            self.met[shapes] += 1
            if self.met[shapes] <= _STEPS_BEFORE or (past and past.rows != slice(None)):
                return step(frame, past, source, learner)
            self.recordings[shapes] = _Recording(step, given, past, learner)
        return self.recordings[shapes].play(given, learner)


class _Recording:
    def __init__(self, step: Step, given: dict[str, Frame], past: "Past | None", learner: "Learner") -> None:
        self.given = {part: {name: value.clone() for name, value in values.items()} for part, values in given.items()}
        past = past and past._replace(frames=self.given["past"])
        self.replay, self.terms = record(lambda: step(self.given["frame"], past, self.given.get("source"), learner))
        self.seen = learner.guard.before

    def play(self, given: dict[str, Frame], learner: "Learner") -> Terms:
        for part, values in given.items():
            for name, value in values.items():
                self.given[part][name].copy_(value)
        self.replay()
        learner.guard.before = self.seen
        return self.terms


def _on(device: torch.device, part: Mapping[str, object]) -> Frame:
    """What is computed with; the host's own, as the name of a sequence, no kernel sees."""
    return {name: value for name, value in part.items() if isinstance(value, Tensor) and value.device == device}


def record(run: Callable[[], Terms]) -> tuple[Callable[[], None], Terms]:
    """Record what a function launches, without running it -> what plays it, and the terms that playing fills."""
    graph = torch.cuda.CUDAGraph()
    # other threads may go on: the reader pins memory meanwhile
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        terms = run()
    return graph.replay, terms
