"""Who is who from frame to frame, and the box around them."""

import numpy as np
import pytest
from videos import figure

from footage.tracking import SteadyBox, Tracker, overlap


def test_people_who_cross_keep_their_numbers_whatever_their_order():
    rng, tracker = np.random.default_rng(1), Tracker()
    for frame in range(60):
        people = [figure(100 + 5 * frame, phase=frame / 3), figure(400 - 5 * frame, 212, 104, frame / 3 + 2)]
        if 27 <= frame <= 32:  # the second is hidden while they pass
            people.pop()
        order = rng.permutation(len(people)) if frame else range(len(people))
        numbers = tracker.update(np.stack([people[row] for row in order]))
        assert dict(zip(order, numbers, strict=True)) == {row: row + 1 for row in range(len(people))}, frame
    assert tracker.count == 2


def test_somebody_of_another_size_or_place_is_somebody_else():
    tracker = Tracker()
    assert tracker.update(figure(200)[None]) == [1]
    assert tracker.update(figure(300)[None]) == [2]
    assert tracker.update(figure(200, size=40)[None]) == [3]
    assert tracker.update(figure(205)[None]) == [1]


def test_overlap_of_boxes_is_that_of_areas():
    assert overlap(np.array([0, 0, 2.0]), np.array([1, 0, 2.0])) == pytest.approx(1 / 3)
    assert overlap(np.array([0, 0, 2.0]), np.array([5, 0, 2.0])) == 0


def test_a_steady_box_trembles_less_and_cuts_nobody_off():
    rng = np.random.default_rng(0)
    boxes = np.stack([[200 + 4 * t, 200, 120] + rng.normal(0, 3, 3) for t in range(200)])
    steady = SteadyBox()
    smooth = np.stack([steady(box) for box in boxes])
    assert np.diff(smooth, n=2, axis=0).std() < 0.6 * np.diff(boxes, n=2, axis=0).std()
    low, high = boxes[:, :2] - boxes[:, 2:] / 2.4, boxes[:, :2] + boxes[:, 2:] / 2.4
    assert (smooth[:, :2] - smooth[:, 2:] / 2 <= low + 1e-9).all() and (smooth[:, :2] + smooth[:, 2:] / 2 >= high).all()
