"""A training: its loop, and its state on disk."""

import contextlib
import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import matplotlib
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils.errors import UserError
from utils.files import write_atomically

COLUMNS = ("images", "loss", "source_mpjpe_mm", "source_pampjpe_mm", "target_mpjpe_mm", "target_pampjpe_mm")
_WARM_UP = 0.03  # share of the training in which the learning rate rises
_LARGEST_GRADIENT = 5.0
_WATCHED = 20  # steps between two looks at the loss

Batch = Mapping[str, Tensor]


class Course(NamedTuple):
    """What is trained, on what, and how it is judged.

    Attributes:
        model: the network that is kept
        parts: further modules that learn, by the name they have in a checkpoint
        batches: number of the first step -> batches from there to the end
        loss: of a batch
        check: scores in mm, some of COLUMNS, of the model as it is
    """

    model: nn.Module
    parts: dict[str, nn.Module]
    batches: Callable[[int], Iterable[Batch]]
    loss: Callable[[Batch], Tensor]
    check: Callable[[], dict[str, float]]


class Plan(NamedTuple):
    """How long and how fast: images in all, per step and between two validations, and the highest learning rate."""

    images: int
    batch_size: int
    validate_every: int
    learning_rate: float
    bf16: bool

    @property
    def steps(self) -> int:
        """How many there are in all."""
        return math.ceil(self.images / self.batch_size)

    def learning_rate_at(self, step: int) -> float:
        """Up along a line, down along a cosine."""
        rise = max(1, int(_WARM_UP * self.steps))
        falling = 0.5 + 0.5 * math.cos(math.pi * step / self.steps)
        return self.learning_rate * min(1.0, (step + 1) / rise) * falling


class Training:
    """The state of a training on disk: checkpoint.pt to go on from, basemodel.pt for boa.py, log.csv and curve.png.

    Args:
        folder: for the files
        course: what is trained
        device: where it is
    """

    def __init__(self, folder: Path, course: Course, device: torch.device) -> None:
        self.folder, self.course, self.device = folder, course, device
        modules = {"model": course.model, **course.parts}
        self.parameters = [parameter for module in modules.values() for parameter in module.parameters()]
        self.optimizer = torch.optim.AdamW(self.parameters, fused=True)
        self.parts = {**modules, "optimizer": self.optimizer}
        self.rows: list[dict[str, float]] = []
        self.step = 0

    def restore(self) -> None:
        """Go on from the checkpoint, where there is one; UserError when it cannot be read."""
        file = self.folder / "checkpoint.pt"
        if not file.exists():
            return
        try:
            state = torch.load(file, map_location=self.device, weights_only=True)
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{file} does not fit ({reason}); use the same options, or another --name") from error
        self.step, self.rows = state["step"], state["rows"]

    def save(self) -> None:
        """Write all files, each whole or not at all."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        state |= {"step": self.step, "rows": self.rows}
        write_atomically(self.folder / "checkpoint.pt", lambda path: torch.save(state, path))
        half = {name: value.half().contiguous() for name, value in self.course.model.state_dict().items()}
        write_atomically(self.folder / "basemodel.pt", lambda path: torch.save({"model": half}, path))
        write_atomically(self.folder / "log.csv", self._write_log)
        if len(self.rows) > 1:
            write_atomically(self.folder / "curve.png", self._draw)

    def _write_log(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: round(value, 5) for name, value in row.items()} for row in self.rows)

    def _draw(self, path: Path) -> None:
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
        for domain, colour in (("source", "tab:blue"), ("target", "tab:red")):
            for score, style in (("mpjpe", "-"), ("pampjpe", "--")):
                known = [row for row in self.rows if f"{domain}_{score}_mm" in row]
                errors = [row[f"{domain}_{score}_mm"] for row in known]
                label = f"{domain}, {'MPJPE' if score == 'mpjpe' else 'PA-MPJPE'}"
                if known:
                    axes.plot([row["images"] for row in known], errors, style, color=colour, label=label)
        axes.set(xlabel="images seen", ylabel="error [mm]", title="Base model on held-out frames", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
        figure.savefig(path, dpi=110)
        pyplot.close(figure)

    def run(self, plan: Plan) -> None:
        """The loop: fetch, step, now and then validate and save. Raises UserError when the loss is not finite."""
        writer, running = SummaryWriter(str(self.folder)), None
        every = max(1, plan.validate_every // plan.batch_size)
        seen = self.step * plan.batch_size
        with tqdm(total=plan.steps * plan.batch_size, initial=seen, unit=" images") as bar:
            for batch in self.course.batches(self.step):
                loss = self._learn({name: value.to(self.device) for name, value in batch.items()}, plan)
                self.step += 1
                seen = self.step * plan.batch_size
                bar.update(plan.batch_size)
                if self.step % _WATCHED == 0 or self.step == plan.steps:
                    value = self._finite(loss)
                    running = value if running is None else 0.9 * running + 0.1 * value
                    bar.set_postfix(loss=f"{running:.3f}", refresh=False)
                    writer.add_scalar("loss", value, seen)
                if self.step % every == 0 or self.step == plan.steps:
                    row = {"images": seen, "loss": running or loss.item(), **self.course.check()}
                    self.rows.append(row)
                    for name, value in row.items():
                        writer.add_scalar(name, value, seen)
                    bar.write(", ".join(f"{name} {value:.4g}" for name, value in row.items()))
                    self.save()
        writer.close()

    def _learn(self, batch: Batch, plan: Plan) -> Tensor:
        """One step; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = plan.learning_rate_at(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=plan.bf16):
            loss = self.course.loss(batch)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, _LARGEST_GRADIENT)
        self.optimizer.step()
        return loss.detach()

    def _finite(self, loss: Tensor) -> float:
        value = loss.item()
        if not math.isfinite(value):
            raise UserError(f"the loss is not finite after {self.step} steps; use a smaller --lr")
        return value


@contextlib.contextmanager
def judging(model: nn.Module) -> Iterator[None]:
    """Take a model out of training for a while, without gradients."""
    model.eval()
    with torch.no_grad():
        yield
    model.train()
