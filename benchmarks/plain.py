"""The published step, straightforwardly: the baseline of step.py and frame.py, and what the fast one is held against.

One forward for each image, the whole mesh for each prediction, MAML's clone, PyTorch's ordinary Adam, a loop over the
teacher's weights.
"""

import copy

import torch
from torch import Tensor, nn

import boa
from models.hmr import Subsampled
from models.learner import Learner
from models.prediction import predict
from utils import losses
from utils.structures import Frame, Prediction


class Plain:
    """Does what boa.adapt does, of a batch of one frame.

    Args:
        learner: what it starts from; it is not changed
    """

    def __init__(self, learner: Learner) -> None:
        from learn2learn.algorithms import MAML

        self.learner, self.body = learner, learner.body
        self.model, self.teacher = copy.deepcopy(learner.model), copy.deepcopy(learner.teacher)
        for part in [*self.model.modules(), *self.teacher.modules()]:
            if isinstance(part, Subsampled):
                part.__class__, part.stride = nn.Conv2d, (part.every, part.every)  # as torchvision has it
        self.maml = MAML(self.model, lr=learner.probe.lr, first_order=False)
        group = learner.optimizer.param_groups[0]
        rates = {"lr": group["lr"], "betas": group["betas"]}
        self.optimizer = torch.optim.Adam(self.model.parameters(), **rates, foreach=False, fused=False)

    def _single_frame(self, network: nn.Module, frame: Frame, source: Frame) -> tuple[Prediction, dict[str, Tensor]]:
        now = predict(network, self.body, frame)
        terms = boa.frame_terms(now, frame["keypoints_2d"], self.learner)
        return now, terms | boa.labelled_terms(predict(network, self.body, source), source)

    def step(self, frame: Frame, past: Frame | None, source: Frame) -> None:
        """Both levels and all updates; `past` is the frame n before."""
        weights, joints = self.learner.weights, self.learner.joints
        probe = self.maml.clone()
        _, terms = self._single_frame(probe, frame, source)
        probe.adapt(losses.weighted(terms, weights.lower))

        now, terms = self._single_frame(probe, frame, source)
        with torch.no_grad():
            taught = predict(self.teacher, self.body, frame)
        terms["teacher"] = losses.weighted(losses.teacher(now, taught), weights.teacher)
        if past is not None:
            before = predict(probe, self.body, past)
            terms["motion"] = losses.motion(
                now.keypoints_2d, before.keypoints_2d, frame["keypoints_2d"], past["keypoints_2d"], joints
            )
        self.optimizer.zero_grad()
        losses.weighted(terms, weights.upper).backward()
        self.optimizer.step()

        decay = self.learner.decay
        for theirs, ours in zip(self.teacher.parameters(), self.model.parameters(), strict=True):
            theirs.data.mul_(decay).add_(ours.data, alpha=1 - decay)

    @torch.no_grad()
    def predict(self, frame: Frame) -> Prediction:
        """What the network says now."""
        return predict(self.model, self.body, frame)
