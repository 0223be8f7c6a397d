"""The lines of the README that adapt a network of one's own, run as they stand."""

import copy
import re

import torch
import toys
from places import PROJECT

from boa import Options, adapt, make_learner
from models.prior import PosePrior
from models.smpl import load_bodies
from streams import DEMO_ASSETS


def lines() -> str:
    found = re.search(r"<!-- interface -->\n```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
    return found[1]


def some_frames(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 1, 3, 224, 224, generator=generator)
    places = 0.3 * torch.randn(count, 1, 49, 2, generator=generator)
    return list(zip(images, torch.cat([places, torch.ones(count, 1, 49, 1)], dim=3), strict=True))


def test_the_lines_of_the_readme_adapt_a_network_as_the_program_does():
    torch.manual_seed(0)
    network, frames = toys.TinyRegressor().eval(), some_frames(7)
    untouched = copy.deepcopy(network)
    names = {"network": network, "frames": frames}
    exec(lines(), names)

    body = load_bodies(DEMO_ASSETS.smpl_model_dir, DEMO_ASSETS.regressor_extra, ["neutral"])["neutral"]
    own = copy.deepcopy(untouched)
    learner = make_learner(own, body, PosePrior(DEMO_ASSETS.gmm), Options(lr=6e-5, metalr=1.6e-4))
    terms = []
    for index, (image, keypoints_2d) in enumerate(frames):
        place = {"sequence": ["clip"], "person": torch.tensor([0]), "index": torch.tensor([index])}
        terms.append(adapt({"image": image, "keypoints_2d": keypoints_2d, **place}, None, learner))
    # a frame that does not say where it is follows the one before, so that there is motion from the sixth on
    assert ["upper/motion" in of_frame for of_frame in terms] == [False] * 5 + [True] * 2
    assert torch.equal(network.layer.weight, own.layer.weight)
    assert not torch.equal(network.layer.weight, untouched.layer.weight)
    assert names["prediction"].vertices.shape == (1, len(body.v_template), 3)


class WithJoints(toys.TinyRegressor):
    """A network that wants the joints, too, and says so."""

    inputs = ("image", "keypoints_2d")

    def forward(self, image: torch.Tensor, keypoints_2d: torch.Tensor):
        return super().forward(image + keypoints_2d.mean())


def test_a_network_is_given_what_it_asks_for():
    torch.manual_seed(0)
    network, frames = WithJoints().eval(), some_frames(2)
    weight = network.layer.weight.clone()
    names = {"network": network, "frames": frames}
    exec(lines(), names)
    assert not torch.equal(network.layer.weight, weight)
    assert torch.isfinite(names["prediction"].joints).all()
