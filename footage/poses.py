"""predictions.npz, and the animations that are made of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from footage.camera import focal_length, full_camera, turns
from footage.export import Clip, save_bvh, save_glb
from footage.smoothing import smooth, smooth_rotations
from models.smpl import SMPL
from utils.arrays import ArrayFile
from utils.image import BOX_UNIT
from utils.resume import State
from utils.structures import Prediction

_SHAPES = {
    "rotmat": (24, 3, 3),
    "betas": (10,),
    "cam": (3,),
    "joints_3d": (49, 3),
    "joints_2d": (49, 2),
    "center": (2,),
    "scale": (),
    "cam_full": (3,),
    "translation": (3,),
}


class PosesFile:
    """predictions.npz of a clip, filled frame by frame, and animation.glb and .bvh.

    Args:
        folder: of the run
        body: the body model that the predictions are of
        smooth: rotations and translation over time; what was predicted is saved too
        export: none, glb, bvh or both
    """

    def __init__(self, folder: Path, body: SMPL, smooth: bool, export: str) -> None:
        self.folder, self.body, self.smooth, self.export = folder, body, smooth, export
        self.file = ArrayFile(folder / "predictions.npz", _SHAPES)
        self.image_size: tuple[int, int] = (0, 0)

    def add(self, prediction: Prediction, center: np.ndarray, side: float, image_size: tuple[int, int]) -> None:
        """Append a frame.

        Args:
            prediction: of one frame, on the host
            center: (2,) px and side, px, of the crop
            image_size: height and width, px
        """
        self.image_size = image_size
        rotmat, cam = prediction.rotmat[0].numpy(), prediction.cam[0].numpy()
        arrays = {
            "rotmat": rotmat,
            "betas": prediction.betas[0].numpy(),
            "cam": cam,
            "joints_3d": prediction.joints[0].numpy(),
            "joints_2d": center + prediction.keypoints_2d[0].numpy() * side / 2,
            "center": center,
            "scale": side / BOX_UNIT,
            **full_camera(cam, center, side, image_size),
        }
        self.file.add(arrays)

    def close(
        self, names: Sequence[str], index: Sequence[int], times: Sequence[float], bridged: Sequence[bool]
    ) -> None:
        """Write the files, if there was a frame; what they are made of stays (`discard`).

        Args:
            names, index, times: of the frames that were added, times in s
            bridged: whether the person was not seen in them, only interpolated
        """
        count = self.file.count  # one less than the frames when the disk was full
        if not count:
            return
        arrays = self.file.arrays() | {"time": np.array(times[:count])}
        smoothed = _smoothed(arrays) if self.smooth else {}
        clip = clip_of(self.body, arrays | smoothed)
        self.file.save(
            **{f"{name}_smooth": values.astype(np.float32) for name, values in smoothed.items()},
            imgname=np.array(names[:count], dtype=str),
            index=np.array(index[:count]),
            time=clip.times,
            bridged=np.array(bridged[:count]),
            skeleton=clip.skeleton().astype(np.float32),
            turn=turns(arrays["translation"]).astype(np.float32),
            focal_length=np.array(focal_length(self.image_size)),
            image_size=np.array(self.image_size),
        )
        if self.export in ("glb", "both"):
            save_glb(self.folder / "animation.glb", clip)
        if self.export in ("bvh", "both"):
            save_bvh(self.folder / "animation.bvh", clip)

    def state(self) -> State:
        """What there is up to now (utils.resume.Stateful)."""
        return {"count": self.file.count, "image_size": self.image_size}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.file.cut(state["count"])
        self.image_size = tuple(state["image_size"])

    def discard(self) -> None:
        """Take away what the files were made of."""
        self.file.discard()


def clip_of(body: SMPL, arrays: Mapping[str, np.ndarray]) -> Clip:
    """What is exported of N frames with betas (N,10), rotmat (N,24,3,3), translation (N,3) m and time (N,) s."""
    betas = torch.as_tensor(np.mean(arrays["betas"], axis=0), dtype=torch.float32, device=body.v_template.device)
    vertices = body.unposed(betas[None])[0]
    rest = (body.J_regressor @ vertices).cpu().numpy().astype(np.float64)
    rotmat, translation = (np.asarray(arrays[name], np.float64) for name in ("rotmat", "translation"))
    turn = turns(translation)
    # the body is turned about its origin, and its skeleton about the pelvis, which is not there
    rotmat = np.concatenate([turn[:, None] @ rotmat[:, :1], rotmat[:, 1:]], axis=1)
    return Clip(
        vertices.cpu().numpy(),
        np.asarray(body.faces),
        body.lbs_weights.cpu().numpy(),
        rest,
        np.array(body.parents),
        rotmat,
        translation + turn @ rest[0] - rest[0],
        arrays["time"],
    )


def _smoothed(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        "rotmat": smooth_rotations(arrays["rotmat"], arrays["time"]),
        "translation": smooth(arrays["translation"], arrays["time"]),
    }
