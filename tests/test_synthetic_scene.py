"""Camera, scene and things in it against closed forms."""

import numpy as np
import pytest

from synthetic.camera import Camera, look_at, visible_part
from synthetic.scene import Board, Scene
from synthetic.street import Street


def camera_at(position, target=(0.0, 1.0, 0.0), size=(120, 160)):
    position = np.array(position, float)
    return Camera(look_at(position, np.array(target, float)), position, 400.0, size)


def test_look_at_puts_the_target_in_the_middle_with_the_sky_above():
    position, target = np.array([3.0, 2.0, -1.0]), np.array([0.5, 1.0, 0.2])
    camera = camera_at(position, target, (384, 512))
    seen = camera.project(camera.to_camera(np.stack([target, target + np.array([0, 0.5, 0])])))
    np.testing.assert_allclose(seen[0], [256, 192], atol=1e-6)
    assert seen[1, 1] < 150 and seen[1, 0] == pytest.approx(256)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)
    rays = camera.rays()[:, 191, 255]
    np.testing.assert_allclose(
        rays / np.linalg.norm(rays), (target - position) / np.linalg.norm(target - position), atol=2e-3
    )


def test_a_cropped_camera_sees_the_square_of_the_whole_image_that_was_cut_out():
    camera, points = camera_at([1.0, 2.0, 4.0]), np.random.default_rng(0).uniform(-0.5, 1.5, (20, 3))
    middle, side, size = np.array([70.0, 50.0]), 60.0, 224
    inside = camera.to_camera(points)
    expected = ((camera.project(inside) - middle) / side + 0.5) * size
    np.testing.assert_allclose(camera.cropped(middle, side, size).project(inside), expected, atol=1e-9)


def test_the_visible_part_ends_at_the_edge_of_the_image_and_is_none_out_of_sight():
    camera = camera_at([0.0, 1.0, 4.0])
    square = np.array([[-0.5, -0.2, 4.0], [3.0, 0.2, 4.0]])  # 400 px a metre at 1 m: from x = 30 to beyond the edge
    (rows, columns), points = visible_part(camera, square)
    assert (rows.start, rows.stop, columns.start, columns.stop) == (40, 80, 30, 160)
    np.testing.assert_allclose(points, [[0, 0], [350, 40]])
    assert visible_part(camera, square + [9, 0, 0]) is None
    assert visible_part(camera, square - [0, 0, 4]) is None


def test_what_is_nearer_than_the_person_is_drawn_over_them_and_what_is_farther_behind():
    white = np.full((4, 4, 4), (255, 255, 255, 1), np.float32)
    corners = np.array([[-0.2, 1.2, 0], [0.2, 1.2, 0], [0.2, 0.8, 0], [-0.2, 0.8, 0]])
    near, far = (Board(corners + [0, 0, z], white) for z in (2.0, -2.0))
    scene = Scene(np.ones(3), 0.5, np.ones(3), np.zeros(3), np.zeros(3), np.ones((8, 8), np.float32), 2.0, [near, far])
    image, in_front = scene.layers(camera_at([0.0, 1.0, 4.0]), np.zeros(3), depth=4.0)
    assert image[60, 80] == pytest.approx(255)
    (patch,) = in_front
    assert patch.rows.stop - patch.rows.start == 80  # 0.4 m at 2 m


def test_the_background_stays_while_the_camera_does():
    """Without camera motion, what is far from the person does not change but for the camera's noise."""
    street, camera = Street(np.random.default_rng(0), 0.0), camera_at([0.0, 1.5, 4.0])
    first, _ = street.layers(camera, np.zeros(3), 4.0)
    second, _ = street.layers(camera, np.array([0.3, 0, 0]), 4.0)
    np.testing.assert_array_equal(first[:40], second[:40])
    assert (first != second).any()  # the shadow has moved
