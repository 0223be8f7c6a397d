"""The regressor that is given 2D joints, alone and beside the image, and the body's joints without its vertices."""

import copy

import numpy as np
import pytest
import torch

import config
import streams
from models.hmr import HMR, JointHMR, load_hmr, load_mean_params
from models.joint_branch import JointBranch
from models.prediction import predict
from models.skeleton import Skeleton
from models.smpl import load_bodies
from synthetic.detections import Draw, view_people
from synthetic.motions import source_poses
from utils.errors import UserError
from utils.evaluation import score_limbs
from utils.geometry import axis_angle_to_rotmat, project
from utils.joints import DETECTED23, JOINTS49, LIMBS, SMPL24, SPIN_TWINS, flip_permutation, rows


@pytest.fixture(scope="module")
def mean_params(world):
    return load_mean_params(world.stream.assets.mean_params)


def some_joints(count: int, seed: int = 0) -> torch.Tensor:
    """People of random joints (count,49,3), all of them seen."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.rand(count, 49, 2, generator=generator) * 1.6 - 0.8
    return torch.cat([places, torch.ones(count, 49, 1)], dim=-1)


def trained(network: torch.nn.Module) -> torch.nn.Module:
    """The network with an output that is not nearly 0, as if it had learned something."""
    torch.manual_seed(1)
    torch.nn.init.normal_(network.out.weight, std=0.02)
    return network.eval()


def test_it_gives_rotations_shape_and_camera(mean_params):
    rotmat, betas, cam, *_ = trained(JointBranch(mean_params))(some_joints(5))
    assert (rotmat.shape, betas.shape, cam.shape) == ((5, 24, 3, 3), (5, 10), (5, 3))
    torch.testing.assert_close(rotmat @ rotmat.mT, torch.eye(3).expand(5, 24, 3, 3), atol=1e-5, rtol=0)
    assert (cam[:, 0] > 0).all()


def test_the_body_does_not_depend_on_where_the_person_is_in_the_crop(mean_params, bodies):
    network, body = trained(JointBranch(mean_params)), bodies["neutral"]
    given = some_joints(3)
    moved = given.clone()
    moved[..., :2] = given[..., :2] * 0.6 + torch.tensor([0.3, -0.1])
    before, after = (network(joints) for joints in (given, moved))
    torch.testing.assert_close(before.rotmat, after.rotmat, atol=1e-5, rtol=0)
    # and the camera moves the projected body as the joints were moved, but for the perspective of the crop's camera
    joints = body.from_rotmat(before.rotmat, before.betas).joints
    expected = project(joints, before.cam) * 0.6 + torch.tensor([0.3, -0.1])
    torch.testing.assert_close(project(joints, after.cam), expected, atol=0.01, rtol=0)


def test_joints_that_are_not_found_have_no_say_and_those_of_low_confidence_have(mean_params):
    network = trained(JointBranch(mean_params))
    given = some_joints(2)
    wrist = rows(["OP LWrist", "Left Wrist"], JOINTS49)
    outputs = []
    for confidence in (0.0, 0.05):
        given[:, wrist, 2] = confidence
        moved = given.clone()
        moved[:, wrist, :2] += 0.5
        outputs.append([network(joints).rotmat for joints in (given, moved)])
    torch.testing.assert_close(*outputs[0])
    assert not torch.allclose(*outputs[1]) and not torch.allclose(outputs[0][0], outputs[1][0])


def test_spins_rows_stand_in_where_openposes_are_empty(mean_params):
    network = trained(JointBranch(mean_params))
    given = some_joints(2)
    given[:, rows(DETECTED23, JOINTS49)] = given[:, SPIN_TWINS]
    only_spin = given.clone()
    only_spin[:, rows([name for name, twin in zip(DETECTED23, SPIN_TWINS, strict=True) if twin >= 25], JOINTS49)] = 0
    torch.testing.assert_close(network(given), network(only_spin))


@pytest.mark.parametrize("seen", [0, 1])
def test_nobody_and_a_single_joint_give_finite_numbers_and_gradients(mean_params, seen):
    network = trained(JointBranch(mean_params))
    given = some_joints(2)
    given[:, :, 2] = 0
    given[:, rows(["OP LWrist"], JOINTS49), 2] = seen
    output = network(given)[:3]
    sum(value.square().sum() for value in output).backward()
    assert all(torch.isfinite(value).all() for value in output)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_the_second_derivative_agrees_with_finite_differences(mean_params):
    """As the weight probe needs it: the gradient after a step, with respect to the weights before it."""
    network = trained(JointBranch(mean_params)).double()
    given = some_joints(4).double()
    weight = network.out.weight

    def upper(start: torch.Tensor) -> torch.Tensor:
        def loss(value: torch.Tensor) -> torch.Tensor:
            output = torch.func.functional_call(network, {"out.weight": value}, (given,))
            return output.rotmat[:, :, 0, 1].square().mean() + output.cam.square().mean()

        step = torch.autograd.grad(loss(start), start, create_graph=True)[0]
        return loss(start - 1e-2 * step)

    start = weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(upper(start), start)
    assert torch.isfinite(gradient).all()
    direction = torch.randn_like(start)
    ends = [upper((start + sign * 1e-6 * direction).detach().requires_grad_()).item() for sign in (-1, 1)]
    assert (gradient * direction).sum().item() == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-3)


def save(network: torch.nn.Module, file) -> None:
    torch.save({"model": {name: value.half() for name, value in network.state_dict().items()}}, file)


def test_a_checkpoint_says_of_which_kind_it_is(mean_params, world, tmp_path):
    kinds = {
        "alone": trained(JointBranch(mean_params)),
        "both": JointHMR(mean_params, 18).eval(),
        "image": HMR(mean_params, 18).eval(),
    }
    given = {"image": torch.randn(2, 3, 64, 64), "keypoints_2d": some_joints(2)}
    for name, network in kinds.items():
        save(network, tmp_path / f"{name}.pt")
        loaded = load_hmr(world.stream.assets.mean_params, tmp_path / f"{name}.pt").eval()
        assert type(loaded) is type(network) and loaded.inputs == network.inputs
        half = copy.deepcopy(network).half().float()
        fields = [given[field] for field in network.inputs]
        torch.testing.assert_close(loaded(*fields), half(*fields))


def test_a_checkpoint_of_another_size_is_refused(mean_params, world, tmp_path):
    network = JointBranch(mean_params)
    network.out = torch.nn.Linear(network.out.in_features, 10)
    save(network, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"other\.pt is a checkpoint of another architecture than a joint branch"):
        load_hmr(world.stream.assets.mean_params, tmp_path / "other.pt")


def test_predict_hands_each_network_what_it_asks_for(mean_params, bodies):
    frame = {"image": torch.randn(2, 3, 64, 64), "keypoints_2d": some_joints(2)}
    for network in (trained(JointBranch(mean_params)), JointHMR(mean_params, 18).eval()):
        prediction = predict(network, bodies["neutral"], frame)
        assert prediction.joints.shape == (2, 49, 3) and torch.isfinite(prediction.vertices).all()


def test_a_mirror_shows_the_mirrored_body(mean_params):
    """Left and right are exchanged, and everything is turned as a mirror in the plane x = 0 does."""
    network, given = trained(JointBranch(mean_params)).eval(), some_joints(3)
    mirrored = given[:, flip_permutation(JOINTS49)] * torch.tensor([-1.0, 1, 1])
    mirror = torch.diag(torch.tensor([-1.0, 1, 1]))
    body, other = network(given), network(mirrored)
    torch.testing.assert_close(other.rotmat, mirror @ body.rotmat[:, flip_permutation(SMPL24)] @ mirror)
    torch.testing.assert_close(other.betas, body.betas)
    torch.testing.assert_close(other.cam, body.cam * torch.tensor([1.0, -1, 1]))


def test_image_and_joints_put_together_begin_with_what_the_joints_say_and_learn_to_correct_it(mean_params):
    torch.manual_seed(0)
    image, joints = HMR(mean_params, 18).eval(), trained(JointBranch(mean_params))
    both = JointHMR.of(image, joints).eval()
    pictures, given = torch.randn(2, 3, 64, 64), some_joints(2)
    output = both(pictures, given)
    # as in training, without what the joints of the mirror image say
    torch.testing.assert_close(output[:3], joints.train()(given)[:3])
    torch.testing.assert_close(both.features(pictures), image.features(pictures))
    output.rotmat[:, 1:, 0, 1].sum().backward()
    assert both.decpose.weight.grad.abs().max() > 0


@pytest.mark.parametrize("corrections", [0.0, 0.02])
def test_a_skeleton_has_the_joints_of_the_body(world, bodies, corrections):
    """With pose corrections too, which the free body does not have."""
    torch.manual_seed(0)
    body = copy.deepcopy(bodies["neutral"])
    body.posedirs.normal_(0, corrections) if corrections else body.posedirs.zero_()
    rotmat = axis_angle_to_rotmat(torch.randn(6 * 24, 3)).view(6, 24, 3, 3)
    betas = torch.randn(6, 10)
    joints, bones = Skeleton(body)(rotmat, betas)
    torch.testing.assert_close(joints, body.from_rotmat(rotmat, betas).joints, atol=2e-5, rtol=0)
    # the left forearm is turned by all joints from the pelvis to the elbow
    chain = [0, 3, 6, 9, 13, 16, 18]
    turned = torch.eye(3)
    for joint in chain:
        turned = turned @ rotmat[0, joint]
    torch.testing.assert_close(bones[0, 18], turned, atol=1e-5, rtol=0)


def test_a_stretched_bone_is_longer_by_that_much(bodies):
    skeleton, rotmat, betas = Skeleton(bodies["neutral"]), torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10)
    stretch = torch.ones(1, 24)
    stretch[0, SMPL24.index("left_elbow")] = 1.2
    ends = rows(["OP LShoulder", "OP LElbow", "OP LWrist"], JOINTS49)
    before, after = (skeleton(rotmat, betas, value)[0][0, ends].numpy() for value in (None, stretch))
    lengths = [np.linalg.norm(np.diff(points, axis=0), axis=1) for points in (before, after)]
    np.testing.assert_allclose(lengths[1] / lengths[0], [1.2, 1.0], atol=1e-5)


@pytest.mark.parametrize("hidden", [(), ("Ear",), ("REar", "Right Ear", "REye", "Right Eye")])
def test_the_free_network_is_near_the_joints_of_motions_that_it_was_not_trained_on(hidden):
    """Exact joints before many cameras, beside a body at rest; OpenPose leaves out what it does not see of a face."""
    assets = streams.DEMO_ASSETS
    body = load_bodies(assets.smpl_model_dir, assets.regressor_extra, ["neutral"])["neutral"]
    skeleton, draw = Skeleton(body.joints_only()), Draw(1)
    poses = source_poses(np.random.default_rng(3), 2, kinds=("serve", "run", "dance"))
    views = view_people(draw, skeleton, torch.as_tensor(poses, dtype=torch.float32))
    seen = views.in_camera[..., :2] / views.in_camera[..., 2:]
    given = torch.cat([seen, torch.ones(len(seen), 49, 1)], dim=-1)
    given[:, torch.tensor([name.endswith(hidden) for name in JOINTS49])] = 0
    network = load_hmr(assets.mean_params, config.DEMO / "joints.pt").eval()
    limbs = rows(LIMBS.values(), JOINTS49)
    truth = views.joints[:, limbs].double().numpy()
    with torch.no_grad():
        rotmat, betas, *_ = network(given)
        bodies = [skeleton(turns, betas)[0] for turns in (rotmat, torch.eye(3).expand_as(rotmat))]
    found, at_rest = (score_limbs(joints[:, limbs].double().numpy(), truth)[2] for joints in bodies)
    assert found["pampjpe"].mean() < 65 and found["mpjpe"].mean() < 100
    assert found["pampjpe"].mean() < at_rest["pampjpe"].mean() / 2
