"""A person that moves over the ground."""

import numpy as np
import pytest
from places import DEMO

from synthetic.body import Body
from synthetic.motions import KINDS
from synthetic.person import Person, perform


def plain_person(gender: str = "male") -> Person:
    body = Body(DEMO, gender)
    return Person(body, np.zeros(10), np.zeros((len(body.template), 3)))


def test_a_person_walks_forward_on_the_floor():
    person = plain_person()
    rotmats, places = perform(person, "walk", np.random.default_rng(2), 60)
    for rotmat, place in zip(rotmats, places, strict=True):
        lowest = (person.body(rotmat, person.shaped)[0] + place)[:, 1].min()
        assert lowest == pytest.approx(0, abs=1e-5)
    moved = places[-1] - places[0]
    ahead = rotmats[:, 0].mean(axis=0) @ [0, 0, 1]
    assert moved @ ahead > 0.7  # m in 2 s


class NoisyBody:
    """A body whose points are moved by as much as rounding on another processor might."""

    def __init__(self, body: Body, seed: int) -> None:
        self.body, self.rng = body, np.random.default_rng(seed)

    def __call__(self, *pose):
        return [points + 1e-7 * self.rng.standard_normal(points.shape) for points in self.body(*pose)]


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_does_not_choose_the_standing_foot(kind):
    places = []
    for seed in (0, 1):
        person = plain_person()
        person.body = NoisyBody(person.body, seed)
        places.append(perform(person, kind, np.random.default_rng(3), 40)[1])
    np.testing.assert_allclose(*places, atol=1e-4)
