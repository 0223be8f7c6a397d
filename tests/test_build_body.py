"""What built the free body, on meshes with closed forms."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from tools.build_body.body_model import joint_of_bone, shape_space, volume
from tools.build_body.decimation import close_holes, decimate


def test_bones_move_with_the_joint_of_their_name():
    expected = {"upperarm02.L": "left_shoulder", "foot.R": "right_ankle", "spine01": "spine3", "jaw": "head"}
    assert {bone: joint_of_bone(bone) for bone in expected} == expected
    assert joint_of_bone("finger1-2.R") == "right_wrist" and joint_of_bone("finger3-1.L") == "left_hand"


def sphere(steps=12):
    """A mirror-symmetric closed mesh: vertices (N,3), faces (F,3), mirror (N,)."""
    points = [(0, 1, 0), (0, -1, 0)]
    for ring in range(1, steps):
        for step in range(2 * steps):
            tilt, turn = np.pi * ring / steps, np.pi * step / steps
            points.append((np.sin(tilt) * np.sin(turn), np.cos(tilt), np.sin(tilt) * np.cos(turn)))
    points = np.array(points)
    faces = ConvexHull(points).simplices
    normals = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    inward = (normals * points[faces].mean(axis=1)).sum(axis=1) < 0
    faces[inward] = faces[inward][:, ::-1]
    mirror = np.linalg.norm(points[:, None] * [-1, 1, 1] - points[None], axis=2).argmin(axis=1)
    return points, faces, mirror


def test_decimation_keeps_a_sphere_closed_symmetric_and_round():
    points, faces, mirror = sphere()
    kept, fewer = decimate(points, faces, 120, mirror)
    assert len(kept) == 120 and len(fewer) == 2 * 120 - 4
    assert set(mirror[kept]) == set(kept)
    assert volume(points[kept], fewer) == pytest.approx(4 / 3 * np.pi, rel=0.1)


def test_a_hole_is_closed_without_new_vertices():
    points, faces, _ = sphere()
    open_faces = faces[~(faces == 0).any(axis=1)]  # without the pole's faces
    closed, (hole,) = close_holes(open_faces, points)
    assert len(hole) == 24 and len(closed) == len(open_faces) + 22
    assert volume(points, closed) == pytest.approx(volume(points, faces), rel=0.02)


def test_shape_directions_are_deviations_of_the_samples():
    rng = np.random.default_rng(0)
    points, faces, mirror = sphere()
    tall = points * [0, 1, 0]
    amounts = rng.normal(0, 0.3, 400)
    samples = points + amounts[:, None, None] * tall + rng.normal(0, 1e-4, (400, 1, 1)) * points
    _, directions = shape_space(samples, faces, mirror)
    np.testing.assert_allclose(directions[..., 0], amounts.std() * tall, atol=2e-3)
