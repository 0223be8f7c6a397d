"""predictions.npz, and the animations that are made of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from footage.camera import focal_length, full_camera, turns
from footage.export import Clip, save_bvh, save_glb
from footage.smoothing import OneEuro, OneEuroRotation
from models.smpl import SMPL
from utils.arrays import ArrayFile
from utils.image import BOX_UNIT
from utils.resume import State
from utils.structures import Prediction

# cutoff in Hz and how fast it rises, for rotations (rad/s) and translation (m/s)
_ROTATION_FILTER = (1.5, 0.7)
_TRANSLATION_FILTER = (1.0, 1.0)
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
_SMOOTH_SHAPES = {"rotmat_smooth": (24, 3, 3), "translation_smooth": (3,)}


class PosesFile:
    """predictions.npz of a clip, filled frame by frame, and animation.glb and .bvh.

    Args:
        folder: of the run
        body: the body model that the predictions are of
        smooth: filter rotations and translation; both are saved
        export: none, glb, bvh or both
    """

    def __init__(self, folder: Path, body: SMPL, smooth: bool, export: str) -> None:
        self.folder, self.body, self.smooth, self.export = folder, body, smooth, export
        self.file = ArrayFile(folder / "predictions.npz", _SHAPES | (_SMOOTH_SHAPES if smooth else {}))
        self.rotations, self.places = OneEuroRotation(*_ROTATION_FILTER), OneEuro(*_TRANSLATION_FILTER)
        self.image_size: tuple[int, int] = (0, 0)

    def add(
        self, prediction: Prediction, center: np.ndarray, side: float, image_size: tuple[int, int], seconds: float
    ) -> None:
        """Append a frame.

        Args:
            prediction: of one frame, on the host
            center: (2,) px and side, px, of the crop
            image_size: height and width, px
            seconds: its time
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
        if self.smooth:
            arrays["rotmat_smooth"] = self.rotations(rotmat.astype(np.float64), seconds)
            arrays["translation_smooth"] = self.places(arrays["translation"], seconds)
        self.file.add(arrays)

    def skip(self) -> None:
        """Take note of a frame in which the person is not: nothing is smoothed over it."""
        self.rotations.reset()
        self.places.reset()

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
        clip = self._clip(self.file.arrays(), np.array(times[:count]))
        self.file.save(
            imgname=np.array(names[:count], dtype=str),
            index=np.array(index[:count]),
            time=clip.times,
            bridged=np.array(bridged[:count]),
            skeleton=clip.skeleton().astype(np.float32),
            turn=turns(self.file.arrays()["translation"]).astype(np.float32),
            focal_length=np.array(focal_length(self.image_size)),
            image_size=np.array(self.image_size),
        )
        if self.export in ("glb", "both"):
            save_glb(self.folder / "animation.glb", clip)
        if self.export in ("bvh", "both"):
            save_bvh(self.folder / "animation.bvh", clip)

    def state(self) -> State:
        """What there is up to now (utils.resume.Stateful)."""
        filters = {"rotations": self.rotations.state(), "places": self.places.state()}
        return {"count": self.file.count, "image_size": self.image_size, **filters}

    def load_state(self, state: State) -> None:
        """Go on from there."""
        self.file.cut(state["count"])
        self.image_size = tuple(state["image_size"])
        self.rotations.load_state(state["rotations"])
        self.places.load_state(state["places"])

    def discard(self) -> None:
        """Take away what the files were made of."""
        self.file.discard()

    def _clip(self, arrays: Mapping[str, np.ndarray], times: np.ndarray) -> Clip:
        body, suffix = self.body, "_smooth" if self.smooth else ""
        betas = torch.as_tensor(np.mean(arrays["betas"], axis=0), dtype=torch.float32, device=body.v_template.device)
        vertices = body.unposed(betas[None])[0]
        rest = (body.J_regressor @ vertices).cpu().numpy().astype(np.float64)
        rotmat, translation = (np.asarray(arrays[f"{name}{suffix}"], np.float64) for name in ("rotmat", "translation"))
        turn = turns(translation)
        # the body is turned about its origin, and its skeleton about the pelvis, which is not there
        rotmat = np.concatenate([turn[:, None] @ rotmat[:, :1], rotmat[:, 1:]], axis=1)
        return Clip(
            vertices.cpu().numpy(),
            np.asarray(body.faces),
            body.lbs_weights.cpu().numpy(),
            rest,
            np.concatenate([[-1], body.parents[1:].numpy()]),
            rotmat,
            translation + turn @ rest[0] - rest[0],
            times,
        )
