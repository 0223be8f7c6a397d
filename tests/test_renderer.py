"""The z-buffer against closed forms, and images against the program's own camera."""

import av
import cv2
import numpy as np
import pytest
import torch
from places import DEMO

from synthetic.body import Body
from utils import renderer
from utils.errors import UserError
from utils.geometry import project

CAM = np.array([0.9, 0.1, -0.25])
FACING_CAMERA = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def body():
    return Body(DEMO, "neutral")


@pytest.fixture(scope="module")
def vertices(body):
    """A T pose turned to the camera, (V,3) m."""
    return body.template @ FACING_CAMERA


def on_crop(points):
    """The program's projection of (N,3) m in pixels of the crop."""
    points, cam = (torch.tensor(values, dtype=torch.float32)[None] for values in (points, CAM))
    return (project(points, cam)[0].numpy() + 1) * 112


TRIANGLE = np.array([[10.0, 10.0], [50.0, 10.0], [10.0, 50.0]])
BACKWARDS = np.array([[0, 2, 1]])  # with y down, this one turns towards the viewer


def test_a_triangle_covers_its_area_and_depth_is_the_affine_function_of_its_corners():
    raster = renderer.rasterise(TRIANGLE, np.array([2.0, 4.0, 6.0]), BACKWARDS, (64, 64))
    y, x = np.mgrid[:64, :64] + 0.5
    inside = (x > 10) & (y > 10) & (x + y < 60)
    assert (raster.mask & ~inside).sum() <= 45 and (inside & ~raster.mask).sum() == 0
    depth = 2 + (x - 10) / 40 * 2 + (y - 10) / 40 * 4
    np.testing.assert_allclose(raster.depth[raster.mask], depth[raster.mask], atol=1e-4)
    assert np.isinf(raster.depth[~raster.mask]).all()
    np.testing.assert_allclose(raster.barycentric[raster.mask].sum(axis=1), 1, atol=1e-5)


def test_the_back_of_a_face_is_not_drawn():
    assert not renderer.rasterise(TRIANGLE, np.ones(3), BACKWARDS[:, ::-1], (64, 64)).mask.any()


def test_the_nearer_of_two_faces_hides_the_other_in_either_order():
    points, depth = np.concatenate([TRIANGLE, TRIANGLE]), np.array([3.0, 3, 3, 2, 2, 2])
    for faces, near in ((np.array([[0, 2, 1], [3, 5, 4]]), 1), (np.array([[3, 5, 4], [0, 2, 1]]), 0)):
        raster = renderer.rasterise(points, depth, faces, (64, 64))
        assert set(raster.face[raster.mask]) == {near}


def test_what_is_outside_of_the_image_or_behind_the_camera_is_left_out():
    for points, depth in ((TRIANGLE + 100, 1.0), (TRIANGLE - 100, 1.0), (TRIANGLE, -1.0)):
        assert not renderer.rasterise(points, np.full(3, depth), BACKWARDS, (64, 64)).mask.any()


def test_the_silhouette_agrees_with_the_filled_projected_faces_to_a_pixel(body, vertices):
    points = on_crop(vertices)
    raster = renderer.rasterise(points, vertices[:, 2] + 50, body.faces, (224, 224))
    # OpenCV also fills the pixels that an edge touches, so it works on an eight times finer grid
    fine = np.zeros((8 * 224, 8 * 224), np.uint8)
    for face in points[body.faces] * 8:
        cv2.fillConvexPoly(fine, np.round((face - 0.5) * 16).astype(np.int32), 1, shift=4)
    filled = fine[4::8, 4::8]
    pixel = np.ones((3, 3), np.uint8)
    drawn = raster.mask.astype(np.uint8)
    assert not (drawn & ~cv2.dilate(filled, pixel)).any()
    assert not (cv2.erode(filled, pixel) & ~drawn & 1).any()


def test_every_visible_vertex_projects_to_a_pixel_that_shows_a_face_around_it_at_its_depth(body, vertices):
    points, depth = on_crop(vertices), vertices[:, 2] + 50
    raster = renderer.rasterise(points * 4, depth, body.faces, (896, 896))
    column, row = np.floor(points * 4).astype(int).T
    gap = depth - raster.depth[row, column]
    inner = cv2.erode(raster.mask.astype(np.uint8), np.ones((3, 3)))[row, column] > 0
    # nothing seen is behind a vertex in the same place, but for some at the edges of fingers and toes
    assert inner.mean() > 0.7 and (gap[inner] > -0.02).mean() > 0.995
    assert (np.abs(gap) < 0.005).mean() > 0.35  # about half of a body faces the camera
    seen = np.flatnonzero(np.abs(gap) < 0.002)
    corners = vertices[body.faces[raster.face[row[seen], column[seen]]]]
    assert np.linalg.norm(corners - vertices[seen, None], axis=2).min(axis=1).max() < 0.03


def test_interpolation_gives_back_a_linear_function_of_the_image(body, vertices):
    points = on_crop(vertices).astype(np.float32)
    raster = renderer.rasterise(points, vertices[:, 2] + 50, body.faces, (224, 224))
    y, x = np.nonzero(raster.mask)
    values = renderer.interpolate(raster, body.faces, points)
    np.testing.assert_allclose(values, np.stack([x, y], axis=1) + 0.5, atol=0.05)


def test_normals_point_outwards_and_those_of_a_sphere_are_radial():
    turn, tilt = np.meshgrid(np.linspace(0, 2 * np.pi, 40, endpoint=False), np.linspace(0.2, np.pi - 0.2, 20))
    points = np.stack([np.sin(tilt) * np.cos(turn), np.cos(tilt), np.sin(tilt) * np.sin(turn)], axis=-1)
    index = np.arange(800).reshape(20, 40)
    a, b = index[:-1], np.roll(index, -1, axis=1)[:-1]
    c, d = index[1:], np.roll(index, -1, axis=1)[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    normals = renderer.vertex_normals(points.reshape(-1, 3), faces).reshape(20, 40, 3)[2:-2]
    assert ((normals * points[2:-2]).sum(axis=-1) > 0.99).all()


@pytest.mark.parametrize("side", [224, 448])
def test_a_point_on_the_mesh_is_drawn_where_the_program_projects_it(body, vertices, side):
    colours = np.full((len(vertices), 3), 60.0)
    hand = body.vertex_ids[12]  # tip of the left index finger
    colours[np.linalg.norm(vertices - vertices[hand], axis=1) < 0.04] = (255, 0, 0)
    picture = renderer.overlay(np.zeros((side, side, 3), np.uint8), vertices, body.faces, CAM, colours)
    y, x = np.nonzero(picture[..., 0] > picture[..., 1].astype(int) + 40)
    expected = on_crop(vertices[[hand]])[0] * side / 224
    assert len(x) > 5
    assert np.linalg.norm([x.mean() + 0.5, y.mean() + 0.5] - expected) < 0.04 * 112 * CAM[0] * side / 224


def test_an_overlay_leaves_the_rest_of_the_crop_alone(body, vertices):
    crop = np.random.default_rng(0).integers(0, 255, (224, 224, 3), dtype=np.uint8)
    picture = renderer.overlay(crop, vertices, body.faces, CAM)
    changed = (picture != crop).any(axis=2)
    raster = renderer.rasterise(on_crop(vertices), vertices[:, 2] + 50, body.faces, (224, 224))
    assert not (changed & ~cv2.dilate(raster.mask.astype(np.uint8), np.ones((3, 3))).astype(bool)).any()
    assert changed[raster.mask].mean() > 0.99


def test_the_side_view_shows_the_profile_looking_left_at_the_height_of_the_overlay(body, vertices):
    white = np.full((224, 224, 3), 255, np.uint8)
    front, side = (
        (picture != 255).any(axis=2)
        for picture in (
            renderer.overlay(white, vertices, body.faces, CAM),
            renderer.side_view(vertices, body.faces, CAM),
        )
    )
    assert front.any(axis=0).sum() > 3 * side.any(axis=0).sum()  # a T pose is wide from the front alone
    rows_front, rows_side = (np.flatnonzero(mask.any(axis=1)) for mask in (front, side))
    np.testing.assert_allclose(rows_front[[0, -1]], rows_side[[0, -1]], atol=2)
    nose = np.linalg.norm(vertices - vertices[body.vertex_ids[0]], axis=1) < 0.03
    colours = np.where(nose[:, None], (255.0, 0, 0), (60.0, 60, 60))
    marked = renderer.side_view(vertices, body.faces, CAM, colours=colours).astype(int)
    red = np.flatnonzero((marked[..., 0] > marked[..., 1] + 40).any(axis=0))
    assert red.max() < np.flatnonzero(side.any(axis=0)).mean()


def test_video_holds_every_frame_in_its_size(tmp_path):
    levels = [20, 90, 160, 230]
    frames = (np.full((51, 64, 3), level, np.uint8) for level in levels)
    renderer.write_video(tmp_path / "clip.mp4", frames, rate=25)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 25
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [picture.shape for picture in pictures] == [(50, 64, 3)] * 4
    np.testing.assert_allclose([picture.mean() for picture in pictures], levels, atol=4)


def test_a_video_that_fails_half_way_leaves_nothing_behind(tmp_path):
    def frames():
        yield np.zeros((64, 64, 3), np.uint8)
        raise UserError("the stream broke off")

    with pytest.raises(UserError, match="broke off"):
        renderer.write_video(tmp_path / "clip.mp4", frames())
    assert list(tmp_path.iterdir()) == []
