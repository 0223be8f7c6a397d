"""What is carried from frame to frame: the model with its probe, teacher and optimizer, and the frames before."""

import copy
import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.cuda_graph import CudaGraphs
from models.double_backward import FastDoubleBackward
from models.guard import JumpGuard
from models.prediction import features_of, inputs_of, predict
from models.prior import PosePrior
from models.second_order import FiniteDifference
from models.smpl import SMPL
from utils import losses
from utils.errors import UserError
from utils.files import write_atomically
from utils.joints import SPIN
from utils.loop import KeypointCoverage
from utils.options import option
from utils.resume import State
from utils.structures import Frame, Prediction

# the modes in which these flags do something
ADAPTS, DYNAMIC, BENCHMARK = "--method boa", "--dynamic_boa", "--dataset_name"
FIRST_ORDER, SECOND_ORDER = "--first_order", "the second order, without --first_order and with a --metalr"

# 1 - cosine of the features before and after a step above which DynaBOA takes further ones, at its learning rate; what
# steps do to the features goes about in proportion to that (benchmarks/feature_change.py)
THRESHOLD, THRESHOLD_LR = 3.1e-4, 3e-6


@dataclass(frozen=True)
class StepOptions:
    """The flags of a step, in the order of the algorithm; they do nothing with `--method frozen`."""

    # lower level and what both levels share
    metalr: float = option(8e-6, "learning rate a of the weight probe", least=0, only=ADAPTS, aliases=("fastlr",))
    first_order: bool = option(False, "do not differentiate through the weight probe (faster)", only=ADAPTS)
    second_order: str = option(
        "exact",
        "how it is differentiated: exact, or fd, by a finite difference (faster, off by about 1e-4)",
        choices=("exact", "fd"),
        only=SECOND_ORDER,
    )
    precision: str = option(
        "fp32",
        "of the network's convolutions; bf16 is for processors that have it, losses and updates stay in fp32",
        choices=("fp32", "bf16"),
        only=FIRST_ORDER,
    )
    cuda_graph: bool = option(
        False, "record the step on an NVIDIA GPU and play it again, which starts it faster; same numbers", only=ADAPTS
    )
    s2dloss_weight: float = option(10.0, "2D joints", least=0, only=ADAPTS)
    shapeloss_weight: float = option(2e-6, "shape prior", least=0, only=ADAPTS, aliases=("shape_prior_weight",))
    gmmpriorloss_weight: float = option(1e-4, "pose prior", least=0, only=ADAPTS, aliases=("pose_prior_weight",))
    labelloss_weight: float = option(0.1, "labelled source; 0: no source is needed", least=0, only=ADAPTS)
    lower_level_mixtrain: bool = option(True, "labelled source in the lower level", only=ADAPTS)
    upper_level_mixtrain: bool = option(True, "labelled source in the upper level", only=ADAPTS)
    # upper level
    lr: float = option(3e-6, "learning rate of Adam", least=0, only=ADAPTS)
    beta1: float = option(0.5, "of Adam", least=0, below=1, only=ADAPTS)
    beta2: float = option(0.999, "of Adam", least=0, below=1, only=ADAPTS)
    prev_n: int = option(5, "frames between the two of the motion loss", least=1, only=ADAPTS, aliases=("interval",))
    motionloss_weight: float = option(0.1, "motion between two frames", least=0, only=ADAPTS)
    consistentloss_weight: float = option(0.1, "mean teacher", least=0, only=ADAPTS, aliases=("teacherloss_weight",))
    consistent_s3d_weight: float = option(5.0, "mean teacher's 3D joints", least=0, only=ADAPTS)
    consistent_s2d_weight: float = option(5.0, "mean teacher's 2D joints", least=0, only=ADAPTS)
    consistent_pose_weight: float = option(1.0, "mean teacher's rotations", least=0, only=ADAPTS)
    consistent_beta_weight: float = option(0.001, "mean teacher's shape", least=0, only=ADAPTS)
    ema_decay: float = option(
        0.1, "fraction of its old weights that the teacher keeps", least=0, most=1, only=ADAPTS, aliases=("alpha",)
    )
    # after it
    dynamic_boa: bool = option(False, "further steps of the upper level while the features move", only=ADAPTS)
    cos_sim_threshold: float = option(
        0.0, "go on while 1 - cosine of the features before and after a step is above; 0: by --lr", only=DYNAMIC
    )
    optim_steps: int = option(7, "the most further steps for a frame", least=0, only=DYNAMIC)
    # at a cut
    soft_reset: float = option(
        1.0,
        "fraction of their change that the weights keep at another sequence or person; 0: back to the base model",
        least=0,
        most=1,
        only=(ADAPTS, BENCHMARK),
    )
    # safety
    jump_limit: float = option(
        200.0, "mm by which an update may move the joints of its frame, else it is marked; 0: any", least=0, only=ADAPTS
    )
    revert_jumps: bool = option(False, "undo such updates", only=ADAPTS)
    # afterwards
    save_model: bool = option(False, "keep the adapted weights, model.pt, for another run's --model_file", only=ADAPTS)

    @property
    def has_source(self) -> bool:
        """Whether a level has a labelled term."""
        return self.labelloss_weight > 0 and (self.lower_level_mixtrain or self.upper_level_mixtrain)

    @property
    def is_bilevel(self) -> bool:
        """Whether there is anything to differentiate through: a probe of learning rate 0 stays at w."""
        return not self.first_order and self.metalr > 0

    @property
    def threshold(self) -> float:
        """`cos_sim_threshold`, or, where it is 0, the one that belongs to `lr`."""
        return self.cos_sim_threshold or THRESHOLD * self.lr / THRESHOLD_LR


class Weights(NamedTuple):
    """Weight of each term, by its name; a term of weight 0 need not be computed."""

    lower: Mapping[str, float]
    upper: Mapping[str, float]
    teacher: Mapping[str, float]

    @classmethod
    def of(cls, options: StepOptions) -> "Weights":
        """The weights that the flags say."""
        both = {
            "kp2d": options.s2dloss_weight,
            "pose_prior": options.gmmpriorloss_weight,
            "shape_prior": options.shapeloss_weight,
        }
        lower = {**both, "labelled": options.labelloss_weight * options.lower_level_mixtrain}
        upper = {
            **both,
            "labelled": options.labelloss_weight * options.upper_level_mixtrain,
            "teacher": options.consistentloss_weight,
            "motion": options.motionloss_weight,
        }
        teacher = {
            "kp3d": options.consistent_s3d_weight,
            "kp2d": options.consistent_s2d_weight,
            "pose": options.consistent_pose_weight,
            "betas": options.consistent_beta_weight,
        }
        return cls(lower, upper, teacher)


class Past(NamedTuple):
    """The frames n before those `rows` of a batch that have one: what the network is given, `keypoints_2d` (K,49,3)."""

    rows: list[int] | slice  # a slice where all have one
    frames: Frame


class History:
    """The last n frames of the person at hand, no more.

    Args:
        n: distance of the two frames of the motion loss
        step: by which the indices of consecutive frames differ
        paper_compat: as the published code, go on across cuts and do without the very first frame
        inputs: what of a frame is remembered beside its joints, which is what the network is given
    """

    def __init__(self, n: int, step: int = 1, paper_compat: bool = False, inputs: Sequence[str] = ("image",)) -> None:
        self.step, self.paper_compat = step, paper_compat
        self.names = list(dict.fromkeys([*inputs, "keypoints_2d"]))
        self.frames: deque[tuple[int | Tensor, ...]] = deque(maxlen=n)  # index, and a part for each name
        self.last: tuple[str, int, int] | None = None  # sequence, person, index of the frame before

    def recall(self, batch: Frame) -> Past | None:
        """The frames n before those of the batch, which is then remembered itself; None if there is none.

        Starts afresh with another person, and where the index jumps. A batch without sequence, person or index goes on
        from the one before.
        """
        found = []
        for row, (sequence, person, index) in enumerate(self._places(batch)):
            if self.last != (sequence, person, index - self.step) and not self.paper_compat:
                self.frames.clear()
            self.last = (sequence, person, index)
            if len(self.frames) == self.frames.maxlen:
                before, *parts = self.frames[0]
                if before > 0 or not self.paper_compat:
                    found.append((row, *parts))
            self.frames.append((index, *(batch[name][row] for name in self.names)))
        if not found:
            return None
        rows, *parts = zip(*found, strict=True)
        rows = slice(None) if len(rows) == len(batch["keypoints_2d"]) else list(rows)
        return Past(rows, {name: torch.stack(part) for name, part in zip(self.names, parts, strict=True)})

    def state(self) -> State:
        """The frames, and which was the last (utils.resume.Stateful)."""
        return {"frames": list(self.frames), "last": self.last}

    def load_state(self, state: State, device: torch.device) -> None:
        """Go on from there."""
        self.frames.extend((index, *(part.to(device) for part in parts)) for index, *parts in state["frames"])
        self.last = state["last"]

    def _places(self, batch: Frame) -> list[tuple[str, int, int]]:
        size, after = len(batch["keypoints_2d"]), self.last[2] + self.step if self.last else 0
        sequences = batch.get("sequence", [""] * size)
        persons = batch["person"].tolist() if "person" in batch else [0] * size
        indices = batch["index"].tolist() if "index" in batch else range(after, after + size * self.step, self.step)
        return list(zip(sequences, persons, indices, strict=True))


class Dynamic(NamedTuple):
    """When further steps of a frame end: the features move less than `threshold`, or there were `most` of them."""

    threshold: float
    most: int


def feature_change(before: Tensor, after: Tensor) -> Tensor:
    """1 - cosine of features (B,H) before and after a step, of the row that moved most; float64, as it is tiny."""
    before, after = before.double(), after.double()
    lengths = (before.norm(dim=1) * after.norm(dim=1)).clamp(min=1e-12)
    return (1 - (before * after).sum(dim=1) / lengths).max()


class SoftReset:
    """What the weights go back to where the stream is cut.

    Args:
        model: as it was trained
        keep: the fraction of their change that the weights keep
    """

    def __init__(self, model: nn.Module, keep: float) -> None:
        self.keep, self.base = keep, [weight.detach().clone() for weight in model.parameters()]
        self.place: tuple[str, int] | None = None  # sequence and person of the frame before

    def is_due(self, batch: Frame) -> bool:
        """Whether another sequence or person begins with the batch, or in it; never where it does not say which."""
        if "sequence" not in batch:
            return False
        places = list(zip(batch["sequence"], batch["person"].tolist(), strict=True))
        before, self.place = self.place or places[0], places[-1]
        return any(one != other for one, other in pairwise([before, *places]))

    @torch.no_grad()
    def __call__(self, network: nn.Module) -> None:
        """w = (1 - keep) * w0 + keep * w, in place; parameters only."""
        torch._foreach_lerp_(list(network.parameters()), self.base, 1 - self.keep)


@dataclass
class Learner:
    """What is carried from frame to frame, and what the losses need.

    Attributes:
        model: image (B,3,224,224) -> SmplParams; its weights are w
        probe: learn2learn's MAML around the model; teacher: m, which keeps the fraction `decay` of its old weights
        optimizer: Adam over w
        body: poses what is predicted; joints_body: the same with only those vertices that joints touch, for the losses
        prior: over poses
        history: the frames before, for the motion term
        joints: those of the 49 that the 2D losses see
        weights: of the terms
        adapts: False for a model that stays as it is
        coverage: counts the frames that have something to adapt to
        difference: adds what differentiating through the probe gives, None: autograd does, or nothing
        graphs: play the step on a GPU, None: it runs as it is written
        guard: watches how far updates move the prediction
        dynamic: of further steps, None: there are none
        soft_reset: at a cut, None: none
        as_dynaboa: whether the temporal terms are those of DynaBOA's published code
    """

    model: nn.Module
    probe: nn.Module
    teacher: nn.Module
    optimizer: torch.optim.Optimizer
    body: SMPL
    joints_body: SMPL
    prior: PosePrior
    history: History
    joints: slice
    weights: Weights
    decay: float
    adapts: bool
    coverage: KeypointCoverage
    difference: FiniteDifference | None
    graphs: CudaGraphs | None
    guard: JumpGuard
    dynamic: Dynamic | None
    soft_reset: SoftReset | None
    as_dynaboa: bool

    def watch_lower(self) -> AbstractContextManager:
        """In this context the lower objective is computed at w, so that it can be differentiated twice."""
        if self.difference:
            return self.difference.watch()
        is_exact = not self.probe.first_order and self.body.v_template.device.type == "cpu"
        return FastDoubleBackward() if is_exact else nullcontext()

    @torch.no_grad()
    def hidden(self, frame: Frame) -> Tensor:
        """The hidden features (K,H) of the model, as it is now, of those K frames that have evidence."""
        return features_of(self.model, frame).hidden[losses.visible(frame["keypoints_2d"], self.joints)]

    @torch.no_grad()
    def predict(self, frame: Frame) -> Prediction:
        """What the model, as it is now, says of a batch of frames."""
        return predict(self.model, self.body, frame)

    def state(self) -> State:
        """All that adapting has changed (utils.resume.Stateful)."""
        coverage = {"coverage": self.coverage.state()}
        if not self.adapts:
            return coverage
        parts = {"model": self.model, "teacher": self.teacher, "optimizer": self.optimizer}
        states = {name: part.state_dict() for name, part in parts.items()}
        place = self.soft_reset and self.soft_reset.place
        return {**coverage, **states, "history": self.history.state(), "place": place}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.coverage.load_state(state["coverage"])
        if self.adapts:
            self.model.load_state_dict(state["model"])
            self.teacher.load_state_dict(state["teacher"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.history.load_state(state["history"], self.body.v_template.device)
        if self.soft_reset:
            self.soft_reset.place = state["place"]


@contextmanager
def weights_kept(model: nn.Module, file: Path | None) -> Iterator[None]:
    """Save the weights at the end of a `with`, also of one that the user stopped, in the form of a base model."""

    def save() -> None:
        if file:
            write_atomically(file, lambda path: torch.save({"model": model.state_dict()}, path))

    try:
        yield
    except KeyboardInterrupt:
        save()
        raise
    save()


def make_learner(
    model: nn.Module,
    body: SMPL,
    prior: PosePrior,
    options: StepOptions,
    joints: slice = SPIN,
    step: int = 1,
    paper_compat: bool = False,
    adapts: bool = True,
    as_dynaboa: bool = False,
) -> Learner:
    """Set up the model's probe, teacher, optimizer and history; the model itself is what gets adapted.

    Args:
        model: image (B,3,224,224) -> SmplParams; what else it wants to be given it says by `inputs` (predict)
        joints: of the 49, that count in the 2D losses; those of a detector are `slice(None)`, all
        step: by which the indices of consecutive frames differ
        paper_compat: of the history
        adapts: False for a model that stays as it is
        as_dynaboa: the temporal terms as DynaBOA's published code has them, with a teacher whose dropout is active
    """
    # not at the top: it takes seconds, and gym, which it imports, announces on the screen that it is not kept up
    try:
        with redirect_stderr(io.StringIO()):
            from learn2learn.algorithms import MAML
    except ImportError as error:
        remedy = "run `python tools/check_system.py`, then `pip install -r requirements.txt`"
        raise UserError(f"learn2learn cannot be loaded ({error}); {remedy}") from error

    by_difference = options.is_bilevel and options.second_order == "fd"
    betas = (options.beta1, options.beta2)
    teacher = copy.deepcopy(model).requires_grad_(False)
    return Learner(
        model=model,
        probe=MAML(model, lr=options.metalr, first_order=by_difference or not options.is_bilevel),
        teacher=teacher.train() if as_dynaboa else teacher,
        optimizer=torch.optim.Adam(
            model.parameters(), lr=options.lr, betas=betas, fused=True, capturable=options.cuda_graph
        ),
        body=body,
        joints_body=body.joints_only(),
        prior=prior,
        history=History(options.prev_n, step, paper_compat, inputs_of(model)),
        joints=joints,
        weights=Weights.of(options),
        decay=options.ema_decay,
        adapts=adapts,
        coverage=KeypointCoverage(joints),
        difference=FiniteDifference(model, options.metalr) if by_difference else None,
        graphs=CudaGraphs() if options.cuda_graph else None,
        guard=JumpGuard(options.jump_limit, options.revert_jumps),
        dynamic=Dynamic(options.threshold, options.optim_steps) if options.dynamic_boa else None,
        soft_reset=SoftReset(model, options.soft_reset) if options.soft_reset < 1 else None,
        as_dynaboa=as_dynaboa,
    )
