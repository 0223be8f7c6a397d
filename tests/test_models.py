"""Body, prior, network, geometry and crops against independent statements of the same thing."""

from functools import partial

import numpy as np
import pytest
import smplx
import torch
import torchvision
import toys
from scipy.spatial.transform import Rotation

from models.hmr import HMR, load_hmr
from models.prior import PosePrior
from utils import geometry
from utils.errors import UserError
from utils.image import CROP_SIZE, Crop, box_around
from utils.joints import BODY25, SMPL24


def test_rotations_agree_with_scipy():
    rotation = Rotation.random(200, random_state=0)
    rotmat = torch.as_tensor(rotation.as_matrix())
    np.testing.assert_allclose(geometry.rotmat_to_axis_angle(rotmat), rotation.as_rotvec(), atol=1e-7)
    vectors = torch.as_tensor(rotation.as_rotvec())
    np.testing.assert_allclose(geometry.axis_angle_to_rotmat(vectors), rotation.as_matrix(), atol=1e-7)
    six = torch.as_tensor(rotation.as_matrix()[:, :, :2].reshape(-1, 6))
    np.testing.assert_allclose(geometry.rot6d_to_rotmat(six), rotation.as_matrix(), atol=1e-12)


def test_projection_puts_a_point_where_the_weak_perspective_says():
    cam = torch.tensor([[0.8, 0.1, -0.2]])
    points = torch.tensor([[[0.3, -0.4, 0.0]]])
    # far away, perspective is s * (x + t)
    np.testing.assert_allclose(geometry.project(points, cam), [[[0.8 * 0.4, 0.8 * -0.6]]], atol=1e-6)


def test_the_body_has_its_joints_where_smplx_has_them(bodies):
    torch.manual_seed(0)
    pose, betas = 0.3 * torch.randn(2, 72), torch.randn(2, 10)
    body = bodies["neutral"]
    plain = smplx.SMPL.forward(body, betas=betas, body_pose=pose[:, 3:], global_orient=pose[:, :3])
    joints, vertices = body.from_axis_angle(pose, betas)
    torch.testing.assert_close(vertices, plain.vertices)
    elbow = list(BODY25).index("OP LElbow")
    torch.testing.assert_close(joints[:, elbow], plain.joints[:, SMPL24.index("left_elbow")])
    rotmat = geometry.axis_angle_to_rotmat(pose.view(-1, 3)).view(2, 24, 3, 3)
    torch.testing.assert_close(body.from_rotmat(rotmat, betas).joints, joints, atol=1e-6, rtol=0)


def test_raising_the_left_arm_raises_the_left_wrist(bodies):
    pose = torch.zeros(1, 72)
    left = 3 * SMPL24.index("left_shoulder")
    pose[0, left + 2] = 1.0
    wrist = list(BODY25).index("OP LWrist")
    rest, raised = (bodies["neutral"].from_axis_angle(p, torch.zeros(1, 10)).joints[0, wrist] for p in (0 * pose, pose))
    assert rest[0] > 0.5
    assert raised[1] - rest[1] > 0.3


def test_fewer_vertices_give_the_same_joints_and_gradients(bodies):
    torch.manual_seed(0)
    pose, betas = 0.3 * torch.randn(2, 72), torch.randn(2, 10, requires_grad=True)
    body = bodies["female"]
    few = body.joints_only()
    joints = [b.from_axis_angle(pose, betas).joints for b in (body, few)]
    torch.testing.assert_close(*joints, atol=1e-6, rtol=0)
    gradients = [torch.autograd.grad((j * torch.linspace(-1, 1, 147).view(49, 3)).sum(), betas)[0] for j in joints]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)


def test_unposed_is_the_zero_pose(bodies):
    betas = torch.randn(2, 10, generator=torch.Generator().manual_seed(0))
    zero = bodies["male"].from_axis_angle(torch.zeros(2, 72), betas).vertices
    torch.testing.assert_close(bodies["male"].unposed(betas), zero, atol=1e-6, rtol=0)


def test_prior_has_a_finite_gradient_at_the_rest_pose(world):
    prior = PosePrior(world.stream.assets.gmm)
    rotmat = torch.eye(3).repeat(23, 1, 1).requires_grad_()
    prior(geometry.rotmat_to_axis_angle(rotmat).view(1, 69)).sum().backward()
    assert torch.isfinite(rotmat.grad).all()
    nearly = geometry.axis_angle_to_rotmat(torch.full((23, 3), 1e-8)).requires_grad_()
    first = torch.autograd.grad(
        prior(geometry.rotmat_to_axis_angle(nearly).view(1, 69)).sum(), nearly, create_graph=True
    )[0]
    second = torch.autograd.grad((first**2).sum(), nearly)[0]
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()


def test_prior_is_the_log_density_of_its_best_gaussian(world):
    prior = PosePrior(world.stream.assets.gmm)
    pose = 0.1 * torch.randn(3, 69, generator=torch.Generator().manual_seed(0))
    gaussian = torch.distributions.MultivariateNormal(prior.means.double(), 0.1 * torch.eye(69, dtype=torch.float64))
    log_weighted = gaussian.log_prob(pose[:, None].double()) + np.log(1 / 8)
    # SMPLify measures determinants by the smallest one, which is the same for all here
    constant = 69 / 2 * np.log(0.1)
    torch.testing.assert_close(prior(pose).double(), -(log_weighted + constant).max(1).values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [18, 34, 50])
@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_checkpoint_says_which_network_it_is(world, tmp_path, depth, norm, prefix):
    if prefix and depth == 34:
        pytest.skip("the prefix does not depend on the depth")
    torch.manual_seed(depth)
    saved = HMR(toys.mean_params(), depth, norm).eval()
    state = {prefix + name: value for name, value in saved.state_dict().items()}
    # numpy numbers and half precision occur in real files
    torch.save({"model": state, "epoch": np.float64(3)}, tmp_path / "model.pt")
    loaded = load_hmr(world.stream.assets.mean_params, tmp_path / "model.pt").eval()
    image = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        for ours, theirs in zip(loaded(image), saved(image), strict=True):
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("depth", [18, 50])
def test_the_trunk_is_torchvisions_resnet_with_its_weights_and_gradients(depth):
    torch.manual_seed(0)
    network = HMR(toys.mean_params(), depth)
    trunk = getattr(torchvision.models, f"resnet{depth}")(norm_layer=partial(torch.nn.GroupNorm, 4))
    trunk.fc = torch.nn.Identity()
    state = network.state_dict()
    trunk.load_state_dict({name: state[name] for name in trunk.state_dict()})
    image = torch.randn(2, 3, 65, 65)
    found, expected = network.features(image), trunk(image)
    torch.testing.assert_close(found, expected)
    names = [name for name, _ in trunk.named_parameters()]
    gradients = torch.autograd.grad(found.square().sum(), [network.get_parameter(name) for name in names])
    wanted = torch.autograd.grad(expected.square().sum(), [trunk.get_parameter(name) for name in names])
    for gradient, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-4, atol=1e-4 * other.abs().max().item())


def test_a_half_precision_checkpoint_is_widened(world, tmp_path):
    state = HMR(toys.mean_params(), 18).half().state_dict()
    torch.save({"model": state}, tmp_path / "half.pt")
    assert load_hmr(world.stream.assets.mean_params, tmp_path / "half.pt").fc1.weight.dtype == torch.float32


def test_another_architecture_is_refused_with_the_keys(world, tmp_path):
    state = HMR(toys.mean_params(), 18).state_dict()
    state["head.weight"] = state.pop("decpose.weight")
    state["fc1.weight"] = state["fc1.weight"][:5]
    torch.save({"model": state}, tmp_path / "other.pt")
    with pytest.raises(
        UserError, match=r"other\.pt.*lacks decpose\.weight.*unknown head\.weight.*shape are fc1\.weight"
    ):
        load_hmr(world.stream.assets.mean_params, tmp_path / "other.pt")


def test_a_crop_moves_image_and_points_alike():
    image = np.zeros((240, 320, 3), np.uint8)
    spot = np.array([201, 83])
    image[spot[1] - 1 : spot[1] + 2, spot[0] - 1 : spot[0] + 2] = 255
    crop = Crop(np.array([180.0, 100.0]), 0.6)
    cut = crop.image(image)[..., 0]
    y, x = (np.indices(cut.shape) * cut).sum((1, 2)) / cut.sum()
    u, v = (crop.points(np.array([[*spot, 1.0]]))[0, :2] + 1) * CROP_SIZE / 2
    # points are truncated to whole 1-based pixels of the crop
    assert abs(x - u) < 2
    assert abs(y - v) < 2


def test_a_crop_is_black_outside_of_the_image_and_keeps_a_flat_grey_inside():
    cut = Crop(np.array([0.0, 120.0]), 1.0).image(np.full((240, 320, 3), 100, np.uint8))
    np.testing.assert_allclose(cut[:, :110], 0, atol=1e-3)
    np.testing.assert_allclose(cut[20:-20, 115:], 100, atol=1e-3)


def test_a_crop_beside_the_image_is_black():
    for x, y in ((-500.0, 100.0), (100.0, 900.0), (2000.0, 100.0), (100.0, -700.0)):
        assert not Crop(np.array([x, y]), 1.0).image(np.full((240, 320, 3), 100, np.uint8)).any()


def test_a_box_is_the_larger_side_enlarged():
    center, scale = box_around(np.array([[10.0, 20.0], [30.0, 120.0]]), 1.2)
    assert center.tolist() == [20, 70]
    assert scale == pytest.approx(1.2 * 100 / 200)
