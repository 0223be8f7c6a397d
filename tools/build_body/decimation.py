"""A closed triangle mesh of a given size whose vertices are a mirror-symmetric subset of the original ones.

Keeping a subset means that blend shapes and skinning weights of the original are simply indexed. Error quadrics:
Garland and Heckbert, Surface Simplification Using Quadric Error Metrics, SIGGRAPH 1997.
"""

import heapq

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

LENGTH_COST = 2e-4  # keeps edges from growing where the surface is flat
MIN_TURN = 0.2  # cosine; a face may not fold over


def triangulate(quads: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Split quads (Q,4) along their shorter diagonal -> triangles (2Q,3)."""
    a, b, c, d = quads.T
    along_ac = np.linalg.norm(vertices[a] - vertices[c], axis=1) <= np.linalg.norm(vertices[b] - vertices[d], axis=1)
    first = np.where(along_ac[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(along_ac[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.stack([first, second], axis=1).reshape(-1, 3)


def largest_component(faces: np.ndarray) -> np.ndarray:
    """The faces (F,3) of the largest connected piece."""
    edges = (np.ones(faces.size), (faces.ravel(), np.roll(faces, 1, axis=1).ravel()))
    size = faces.max() + 1
    _, labels = csgraph.connected_components(sparse.coo_matrix(edges, shape=(size, size)), directed=False)
    of_faces = labels[faces[:, 0]]
    return faces[of_faces == np.bincount(of_faces).argmax()]


def close_holes(faces: np.ndarray, vertices: np.ndarray) -> tuple[np.ndarray, list[list[int]]]:
    """Cap every hole without new vertices -> faces of the closed mesh, and the vertex loops that were open."""
    edges = {(a, b) for face in faces.tolist() for a, b in zip(face, face[1:] + face[:1], strict=True)}
    following = {b: a for a, b in sorted(edges) if (b, a) not in edges}
    loops, seen = [], set()
    for start in following:
        if start in seen:
            continue
        loop = [start]
        while following[loop[-1]] != start:
            loop.append(following[loop[-1]])
        seen.update(loop)
        loops.append(loop)
    caps = [cap for loop in loops for cap in _clip_ears(loop, vertices)]
    return np.array(faces.tolist() + caps), loops


def _clip_ears(loop: list[int], vertices: np.ndarray) -> list[list[int]]:
    """Triangles over a loop, each time the ear with the shortest new edge."""
    loop, caps = list(loop), []
    while len(loop) > 3:
        gaps = [np.linalg.norm(vertices[loop[i - 1]] - vertices[loop[(i + 1) % len(loop)]]) for i in range(len(loop))]
        ear = int(np.argmin(gaps))
        caps.append([loop[ear - 1], loop[ear], loop[(ear + 1) % len(loop)]])
        loop.pop(ear)
    return [*caps, loop]


class _Mesh:
    """A triangle mesh under half-edge collapse, with one error quadric for each vertex."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray):
        self.vertices = vertices
        self.faces: list[list[int] | None] = faces.tolist()
        self.faces_of: dict[int, set[int]] = {}
        for index, face in enumerate(self.faces):
            for vertex in face:
                self.faces_of.setdefault(vertex, set()).add(index)
        self.quadrics = {vertex: np.zeros((4, 4)) for vertex in self.faces_of}
        for face in self.faces:
            quadric = self._quadric(face)
            for vertex in face:
                self.quadrics[vertex] = self.quadrics[vertex] + quadric

    def __len__(self) -> int:
        return len(self.faces_of)

    def neighbours(self, vertex: int) -> set[int]:
        return {corner for face in self.faces_of[vertex] for corner in self.faces[face]} - {vertex}

    def cost(self, gone: int, kept: int) -> float:
        """Squared distance of `kept` from the planes of both, plus the length of the edge."""
        point = np.append(self.vertices[kept], 1.0)
        length = np.linalg.norm(self.vertices[gone] - self.vertices[kept])
        return point @ (self.quadrics[gone] + self.quadrics[kept]) @ point + LENGTH_COST * length**3

    def collapsible(self, gone: int, kept: int) -> bool:
        """Whether moving `gone` onto `kept` leaves a manifold without folded or empty faces."""
        if gone not in self.faces_of or kept not in self.faces_of or kept not in self.neighbours(gone):
            return False
        shared = self.neighbours(gone) & self.neighbours(kept)
        if len(shared) != 2 or min(len(self.neighbours(vertex)) for vertex in shared) <= 3:
            return False
        faces = [self.faces[index] for index in self.faces_of[gone] if kept not in self.faces[index]]
        return all(self._keeps_side(face, gone, kept) for face in faces)

    def collapse(self, gone: int, kept: int) -> None:
        for index in list(self.faces_of[gone]):
            face = self.faces[index]
            if kept in face:
                for vertex in face:
                    self.faces_of[vertex].discard(index)
                self.faces[index] = None
            else:
                self.faces[index] = [kept if vertex == gone else vertex for vertex in face]
                self.faces_of[kept].add(index)
        self.quadrics[kept] = self.quadrics[kept] + self.quadrics[gone]
        del self.faces_of[gone]

    def _normal(self, face: list[int]) -> np.ndarray:
        a, b, c = self.vertices[face]
        return np.cross(b - a, c - a)

    def _quadric(self, face: list[int]) -> np.ndarray:
        normal = self._normal(face)
        area = np.linalg.norm(normal)
        if area < 1e-14:
            return np.zeros((4, 4))
        plane = np.append(normal, -normal @ self.vertices[face[0]]) / area
        return np.outer(plane, plane) * area

    def _keeps_side(self, face: list[int], gone: int, kept: int) -> bool:
        before = self._normal(face)
        after = self._normal([kept if vertex == gone else vertex for vertex in face])
        scale = np.linalg.norm(before) * np.linalg.norm(after)
        return np.linalg.norm(after) >= 1e-9 and not (scale > 1e-16 and before @ after < MIN_TURN * scale)


def decimate(vertices: np.ndarray, faces: np.ndarray, count: int, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a closed mesh to `count` vertices, both sides alike.

    vertices (N,3), faces (F,3), mirror (N,) id of the vertex on the other side -> ids (count,) of the vertices that
    stay, sorted, and faces (2 count - 4, 3) that index into them.
    """
    mesh = _Mesh(vertices, faces)
    queue = [(mesh.cost(a, b), a, b) for a in mesh.faces_of for b in mesh.neighbours(a)]
    heapq.heapify(queue)

    def collapse(gone: int, kept: int) -> None:
        mesh.collapse(gone, kept)
        for vertex in mesh.neighbours(kept):
            heapq.heappush(queue, (mesh.cost(vertex, kept), vertex, kept))
            heapq.heappush(queue, (mesh.cost(kept, vertex), kept, vertex))

    while len(mesh) > count and queue:
        cost, gone, kept = heapq.heappop(queue)
        if not mesh.collapsible(gone, kept) or abs(mesh.cost(gone, kept) - cost) > 1e-12 + 1e-6 * cost:
            continue  # no longer possible, or the entry is older than its vertices
        gone_mirror, kept_mirror = mirror[gone], mirror[kept]
        if gone_mirror == gone:
            if kept_mirror == kept:  # the middle line stays on the middle line
                collapse(gone, kept)
            continue
        if kept_mirror == gone or len(mesh) - count < 2:
            continue
        around = mesh.neighbours(gone)
        if kept_mirror != kept and (gone_mirror in around | mesh.neighbours(kept) or kept_mirror in around):
            continue
        collapse(gone, kept)
        if mesh.collapsible(gone_mirror, kept_mirror):
            collapse(gone_mirror, kept_mirror)
    ids = np.array(sorted(mesh.faces_of))
    new = {old: index for index, old in enumerate(ids)}
    return ids, np.array([[new[vertex] for vertex in face] for face in mesh.faces if face is not None])
