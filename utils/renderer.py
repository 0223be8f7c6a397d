"""One CPU renderer: a z-buffer in numpy for synthetic images, overlays and side views, and video writing.

Camera frame: x right, y down, z forward, metres. Image frame: px, the centre of the first pixel at (0.5, 0.5).
F faces, V vertices, H and W the size of an image, C channels.
"""

import functools
import itertools
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
import torch
from scipy import sparse

from utils.errors import UserError
from utils.geometry import CROP_SIZE, FOCAL_LENGTH, camera_translation

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

NEAR = 0.05  # m; faces closer than this are left out
EDGE_TOLERANCE = 1e-4  # barycentric; 1e-5 leaves single-pixel cracks in float32
SUPERSAMPLING = 2
VIDEO_SAMPLING = 1  # four samples a pixel would take four times as long, for edges that a video blurs
_LONGEST_SEGMENT = 30  # frames of a video that are encoded together
SKIN_BLUE = (170.0, 190.0, 235.0)  # RGB, the colour of predicted bodies
LIGHT = (0.3, -0.7, -0.7)  # direction to the light: from above, behind the camera
AMBIENT = 0.45


class Raster(NamedTuple):
    """What each pixel sees: face (H,W) int32, -1 for none; barycentric (H,W,3); depth (H,W) m, infinite for none."""

    face: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(H,W) bool, where there is a face."""
        return self.face >= 0


def rasterise(points_2d: np.ndarray, depth: np.ndarray, faces: np.ndarray, size: tuple[int, int]) -> Raster:
    """Draw the front faces of a mesh into a z-buffer.

    Args:
        points_2d: (V,2) px
        depth: (V,) m
        faces: (F,3), counter-clockwise seen from outside in a frame whose y axis points up
        size: height and width of the image

    Depth and barycentric coordinates are interpolated linearly in the image, without perspective correction; on the
    small faces of a body the difference is far below a pixel.
    """
    height, width = size
    corners = points_2d.astype(np.float32).take(faces.T, axis=0)  # (3,F,2)
    depths = depth.astype(np.float32).take(faces.T)  # (3,F)
    (xa, ya), (xb, yb), (xc, yc) = corners.transpose(0, 2, 1)
    area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
    low = np.ceil(corners.min(axis=0) - 0.5)
    high = np.ceil(corners.max(axis=0) - 0.5)
    x0, x1 = (np.clip(edge[:, 0], 0, width).astype(np.int32) for edge in (low, high))
    y0, y1 = (np.clip(edge[:, 1], 0, height).astype(np.int32) for edge in (low, high))
    # front faces turn left in an image whose y axis points down
    shown = np.flatnonzero((area < -1e-9) & (depths.min(axis=0) > NEAR) & (x1 > x0) & (y1 > y0))
    boxes = (x0[shown], y0[shown], (x1 - x0)[shown], (y1 - y0)[shown])
    triangle, x, y = _pixels_of_boxes(*boxes)

    xa, ya, xb, yb, xc, yc = (values[shown] for values in (xa, ya, xb, yb, xc, yc))
    inverse = 1 / area[shown]
    # barycentric coordinates as linear functions of the offset from corner a: in float32, products of whole image
    # coordinates would have no digits left for the smallest faces
    slope = np.stack([xa, ya, (yc - ya) * inverse, (xa - xc) * inverse, (ya - yb) * inverse, (xb - xa) * inverse])
    start_x, start_y, bx, by, cx, cy = np.repeat(slope, boxes[2] * boxes[3], axis=1)
    from_x, from_y = x + np.float32(0.5) - start_x, y + np.float32(0.5) - start_y
    b = bx * from_x + by * from_y
    c = cx * from_x + cy * from_y
    a = 1 - b - c
    inside = np.flatnonzero((a >= -EDGE_TOLERANCE) & (b >= -EDGE_TOLERANCE) & (c >= -EDGE_TOLERANCE))
    triangle, x, y, a, b, c = (values.take(inside) for values in (triangle, x, y, a, b, c))
    face, barycentric = shown.take(triangle), np.stack([a, b, c], axis=1)
    distance = (depths.take(face, axis=1) * barycentric.T).sum(axis=0)
    return _nearest(y * width + x, distance, face, barycentric, size)


def _pixels_of_boxes(x0: np.ndarray, y0: np.ndarray, widths: np.ndarray, heights: np.ndarray):
    """All pixels of K boxes, one after the other -> box index, x, y, each (N,)."""
    counts = widths * heights
    box = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    offset = np.arange(counts.sum(), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts).astype(np.int32)
    row = offset // widths[box]
    return box, x0[box] + offset - row * widths[box], y0[box] + row


def _nearest(
    pixel: np.ndarray, distance: np.ndarray, face: np.ndarray, barycentric: np.ndarray, size: tuple[int, int]
) -> Raster:
    """Of N fragments keep the nearest on each pixel."""
    depth = np.full(size[0] * size[1], np.inf)
    np.minimum.at(depth, pixel, distance)
    nearest = np.flatnonzero(distance == depth.take(pixel))
    seen = pixel.take(nearest)
    faces = np.full(len(depth), -1, np.int32)
    weights = np.zeros((len(depth), 3), np.float32)
    # of several as near ones, which write to one place, the last stays
    faces[seen], weights[seen] = face.take(nearest), barycentric.take(nearest, axis=0)
    return Raster(faces.reshape(size), weights.reshape(*size, 3), depth.astype(np.float32).reshape(size))


def interpolate(raster: Raster, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values (V,C) of the vertices on the pixels of raster.mask -> (N,C), row by row."""
    seen = np.flatnonzero(raster.face >= 0)
    a, b, c = faces.take(raster.face.take(seen), axis=0).T
    wa, wb, wc = raster.barycentric.reshape(-1, 3).take(seen, axis=0).T[..., None]
    return wa * values.take(a, axis=0) + wb * values.take(b, axis=0) + wc * values.take(c, axis=0)


def face_incidence(faces: np.ndarray, vertices: int) -> sparse.csr_matrix:
    """Sparse (V,F) matrix that sums over the faces around each vertex; made once for a mesh."""
    ones = np.ones(faces.size, np.float32)
    return sparse.csr_matrix((ones, (faces.T.ravel(), np.tile(np.arange(len(faces)), 3))), (vertices, len(faces)))


def vertex_normals(vertices: np.ndarray, faces: np.ndarray, incidence: sparse.csr_matrix | None = None) -> np.ndarray:
    """Unit normals (V,3), pointing outwards, weighted by area; `incidence` as from face_incidence."""
    a, b, c = (vertices.take(corner, axis=0) for corner in faces.T)
    incidence = face_incidence(faces, len(vertices)) if incidence is None else incidence
    normals = incidence @ _cross(b - a, c - a)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """np.cross of (N,3) and (N,3), a few times faster."""
    (ax, ay, az), (bx, by, bz) = a.T, b.T
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)


def lit(colours: np.ndarray, normals: np.ndarray, light: Iterable[float] = LIGHT, ambient: float = AMBIENT):
    """Colours (V,3) or (3,) under a distant light in direction `light` and ambient light (Lambert) -> (V,3)."""
    direction = np.asarray(light, np.float32) / np.linalg.norm(light)
    return colours * (ambient + (1 - ambient) * np.clip(normals @ direction, 0, None))[:, None]


def draw(
    background: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    focal: float,
    centre: np.ndarray,
    colours=SKIN_BLUE,
    supersampling: int = SUPERSAMPLING,
) -> np.ndarray:
    """Draw a lit mesh over an image.

    Args:
        background: (H,W,3) uint8
        vertices: (V,3) m in camera coordinates
        focal, centre: of the pinhole camera, px
        colours: RGB of the mesh, (V,3) or (3,), 0-255
        supersampling: n for n x n samples a pixel

    Returns the image (H,W,3) uint8.
    """
    height, width = background.shape[:2]
    points = vertices[:, :2] / vertices[:, 2:] * focal + centre
    size = (height * supersampling, width * supersampling)
    raster = rasterise(points * supersampling, vertices[:, 2], faces, size)
    lit_vertices = lit(np.asarray(colours, np.float32), vertex_normals(vertices, faces))
    shaded = interpolate(raster, faces, lit_vertices).astype(np.float32)
    if supersampling == 1:
        canvas = background.copy()
        canvas[raster.mask] = np.clip(shaded, 0, 255)
        return canvas
    canvas = cv2.resize(background, size[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32)
    canvas[raster.mask] = shaded
    return np.clip(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), 0, 255).astype(np.uint8)


def overlay(
    crop: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    cam: np.ndarray,
    colours=SKIN_BLUE,
    supersampling: int = SUPERSAMPLING,
) -> np.ndarray:
    """Draw a predicted body over the crop it was predicted from.

    Args:
        crop: (S,S,3) uint8 RGB, 224 px or any other size of the same square
        vertices: (V,3) m, as the body model gives them
        cam: (3,) weak perspective s, tx, ty
        supersampling: n for n x n samples a pixel

    Returns the image (S,S,3) uint8. The camera is that of SPIN: utils.geometry.project.
    """
    side = len(crop)
    in_camera = vertices + _translation(cam)
    focal, centre = FOCAL_LENGTH * side / CROP_SIZE, np.array([side / 2, side / 2])
    return draw(crop, in_camera, faces, focal, centre, colours, supersampling)


def draw_in_image(
    image: np.ndarray,
    vertices: np.ndarray,
    faces: np.ndarray,
    cam: np.ndarray,
    center: np.ndarray,
    side: float,
    colours=SKIN_BLUE,
) -> None:
    """Draw a predicted body over the image that its crop was cut from, in place.

    Args:
        image: (H,W,3) uint8 RGB
        vertices, faces, cam, colours: as in `overlay`
        center: (2,) px and side, px, of the crop in the image
    """
    in_camera, focal = vertices + _translation(cam), FOCAL_LENGTH * side / CROP_SIZE
    points = in_camera[:, :2] / in_camera[:, 2:] * focal + center
    left, top = np.clip(np.floor(points.min(axis=0)) - 2, 0, image.shape[1::-1]).astype(int)
    right, bottom = np.clip(np.ceil(points.max(axis=0)) + 2, 0, image.shape[1::-1]).astype(int)
    if left < right and top < bottom:
        part = image[top:bottom, left:right]
        part[:] = draw(part, in_camera, faces, focal, center - [left, top], colours, VIDEO_SAMPLING)


def side_view(
    vertices: np.ndarray,
    faces: np.ndarray,
    cam: np.ndarray,
    side: int = CROP_SIZE,
    colours=SKIN_BLUE,
    supersampling: int = SUPERSAMPLING,
) -> np.ndarray:
    """The predicted body turned by 90 degrees about the vertical through its middle, on white -> (side,side,3) uint8.

    Size and height in the image are those of `overlay`; arguments as there. What faces the camera faces left here.
    """
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2
    quarter_turn = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)
    turned = (vertices - middle) @ quarter_turn.T + [0, middle[1], 0]
    centred = np.array([cam[0], 0, cam[2]])
    return overlay(np.full((side, side, 3), 255, np.uint8), turned, faces, centred, colours, supersampling)


def _translation(cam: np.ndarray) -> np.ndarray:
    """utils.geometry.camera_translation of one camera (3,)."""
    return camera_translation(torch.as_tensor(cam, dtype=torch.float64)).numpy()


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float = 25.0, quality: int = 20) -> None:
    """Write frames as H.264 video, whole or not at all; arguments and errors as of VideoWriter."""
    writer = VideoWriter(path, rate, quality)
    try:
        for frame in frames:
            writer.add(frame)
    except BaseException:
        writer.discard()
        raise
    writer.close()


class VideoWriter:
    """H.264 video from frames (H,W,3) uint8 RGB, all of one size; one frame in memory at a time.

    Odd sizes lose a row or column, as the format wants even ones. The file has its name once it is closed, and holds
    then what could be written. quality: x264's constant rate factor, lower is better.

    Each segment of about a second has an encoder of its own, so that a video that goes on after whole segments of
    another (`copy`) is the same to the byte as if it had never stopped.

    numbered: frames come with numbers, among which some may lack

    Attributes:
        segment: frames of a segment; count: frames up to now; number: of the last one

    Raises UserError when the file cannot be written.
    """

    def __init__(self, path: Path, rate: float = 25.0, quality: int = 20, numbered: bool = False) -> None:
        import av  # loads the video libraries, which only those who write video need

        self.path, self.rate, self.quality = Path(path), Fraction(rate).limit_denominator(1001), quality
        self.numbered = numbered
        self.temporary = self.path.with_name(f".{self.path.stem}.part{self.path.suffix}")
        self.segment, self.count, self.number = segment_length(rate), 0, -1
        self.av, self.stream, self.encoder, self.failed = av, None, None, False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # in fragments of a second, so that a file that ends early can be played
        options = {"movflags": "frag_keyframe+empty_moov", "flush_packets": "1"}
        self.container = av.open(str(self.temporary), "w", options=options)

    def add(self, frame: np.ndarray, number: int | None = None) -> None:
        """Append a frame: the next one, or, if they are `numbered`, what is to be shown at its number over the rate."""
        height, width = (side // 2 * 2 for side in frame.shape[:2])
        if self.stream is None:
            self._open(width, height)
        picture = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self.number = max(self.number + 1, number or 0)
        picture.pts, picture.time_base = self.number, 1 / self.rate
        self._write(lambda: self._encode(picture))
        self.count += 1

    def copy(self, file: Path, frames: int) -> None:
        """Begin with the first frames, whole segments, of a file that another writer left, perhaps unfinished.

        Raises ValueError when the file has fewer.
        """
        with self.av.open(str(file)) as source:
            video = source.streams.video[0]
            self._open(video.width, video.height)
            start = None
            for packet in itertools.islice(source.demux(video), frames):
                if packet.size:
                    # players want times from 0 for decoding; encoders give them from 0 for showing
                    start = packet.pts if start is None else start
                    copied = self.av.Packet(_start_codes(bytes(packet)))
                    copied.pts, copied.dts, copied.duration = packet.pts - start, packet.dts - start, packet.duration
                    copied.time_base, copied.is_keyframe = packet.time_base, packet.is_keyframe
                    self._write(functools.partial(self._mux, [copied]))
                    self.count += 1
        self.number = self.count - 1
        if self.count != frames:
            raise ValueError(f"{file} has {self.count} frames where {frames} are needed")

    def _open(self, width: int, height: int) -> None:
        self.stream = self.container.add_stream("libx264", rate=self.rate)
        self._set_up(self.stream.codec_context, width, height)

    def _set_up(self, encoder: "VideoCodecContext", width: int, height: int) -> None:
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.framerate, encoder.time_base = self.rate, 1 / self.rate
        encoder.gop_size = self.segment
        encoder.thread_count = 1  # nothing of the bytes shall depend on how threads take turns
        # x264's weighing of blocks by what later frames take from them (mbtree) was seen to give other bytes for the
        # same frames in one of three busy runs, on a processor with AVX-512
        encoder.options = {"crf": str(self.quality), "preset": "veryfast", "mbtree": "0"}
        if self.numbered:  # over a gap, the decoding times of B-frames would fall into the segment before
            encoder.options |= {"bf": "0"}
        encoder.flags |= self.av.codec.context.Flags.global_header

    def _encode(self, picture: "VideoFrame") -> None:
        if self.count % self.segment == 0:
            self._finish_segment()
            self.encoder = self.av.CodecContext.create("libx264", "w")
            self._set_up(self.encoder, self.stream.width, self.stream.height)
        self._mux(self.encoder.encode(picture))

    def _finish_segment(self) -> None:
        if self.encoder:
            self._mux(self.encoder.encode())

    def _mux(self, packets: Iterable["Packet"]) -> None:
        for packet in packets:
            packet.stream = self.stream
            self.container.mux(packet)

    def _write(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (self.av.FFmpegError, OSError) as error:
            self.failed = True
            raise UserError(
                f"{self.path} cannot be written ({error}); free some space or choose another folder"
            ) from error

    def close(self) -> None:
        """Finish the file; without a single frame there is none. After an error it keeps what was written before."""
        if self.stream is None:
            self.discard()
            return
        try:
            if not self.failed:
                self._write(self._finish_segment)
            self._write(self.container.close)
        finally:
            if self.failed and not _cut_to_whole_fragments(self.temporary):
                self.temporary.unlink()
            else:
                self.temporary.replace(self.path)

    def discard(self) -> None:
        """Leave no file."""
        self.container.close()
        self.temporary.unlink(missing_ok=True)


def segment_length(rate: float) -> int:
    """Frames that VideoWriter encodes together at so many frames/s."""
    return min(max(1, round(rate)), _LONGEST_SEGMENT)


def count_frames(file: Path) -> int:
    """How many frames a video holds, also one that is not finished."""
    import av

    try:
        with av.open(str(file)) as source:
            return sum(packet.size > 0 for packet in source.demux(video=0))
    except av.FFmpegError:
        return 0


def _start_codes(packet: bytes) -> bytes:
    """H.264 as it is in MP4 files, with lengths before the parts (ISO/IEC 14496-15), -> as an encoder gives it."""
    parts, position = [], 0
    while position < len(packet):
        size = int.from_bytes(packet[position : position + 4], "big")
        position += 4 + size
        parts.append(b"\0\0\0\1" + packet[position - size : position])
    return b"".join(parts)


def _cut_to_whole_fragments(path: Path) -> int:
    """Take off the end of an MP4 file (ISO/IEC 14496-12) what a full disk left incomplete -> bytes that are left."""
    position = whole = 0
    with path.open("r+b") as file:
        while len(header := file.read(8)) == 8:
            position += int.from_bytes(header[:4], "big")
            if position > path.stat().st_size:
                break
            if header[4:] == b"mdat":  # the end of a fragment
                whole = position
            file.seek(position)
        file.truncate(whole)
    return whole
