"""Pictures to learn from: portraits composed on made-up backgrounds, and the damage real and generated
pictures have.

Everything here is numpy and OpenCV on uint8 RGB, driven by one random generator, so that a training step can
be repeated exactly after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from core.face_encoder import ARCFACE_TEMPLATE, TEMPLATE_SIZE
from trainers.mini.faces.backgrounds import Rng, fractal, random_background
from trainers.mini.faces.portraits import Portrait, PortraitSet

TEMPLATE = np.array(ARCFACE_TEMPLATE, np.float64)
# Swapping left and right also swaps the eyes and the corners of the mouth.
MIRRORED = [1, 0, 2, 4, 3]
MIRROR_CROP = np.array([[-1.0, 0, TEMPLATE_SIZE - 1], [0, 1, 0]])
# Share of scenes that are a part of one huge face.
CLOSE_UPS = 0.1
# Share of aligned crops without hair and anything else around the face.
ONLY_FACES = 0.25
# Of a face to find, at least this share is not behind somebody else.
VISIBLE = 0.6


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(2, 3) least-squares rotation, scale and shift that takes (n, 2) points to (n, 2) points."""
    source_mean, target_mean = source.mean(0), target.mean(0)
    s, t = source - source_mean, target - target_mean
    spread = (s**2).sum()
    a, b = (s * t).sum() / spread, (s[:, 0] * t[:, 1] - s[:, 1] * t[:, 0]).sum() / spread
    rotation = np.array([[a, -b], [b, a]])
    return np.column_stack([rotation, target_mean - rotation @ source_mean])


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n, 2) points through a (2, 3) affine matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def chain(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The (2, 3) affine matrix that does first `inner`, then `outer`."""
    return np.column_stack([outer[:, :2] @ inner[:, :2], transform(outer, inner[:, 2][None])[0]])


def paste(picture: np.ndarray, rgba: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Draw a cut-out into `picture`, in place, placed by a (2, 3) affine matrix.

    Returns:
        (H, W) bool: the pixels of `picture` that the cut-out hides.
    """
    hidden = np.zeros(picture.shape[:2], bool)
    height, width = picture.shape[:2]
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 0.55:  # the warp samples single points: shrink first, by area, so that nothing aliases
        side = max(4, round(len(rgba) * scale * 1.3))
        factor = side / len(rgba)
        rgba = cv2.resize(rgba, (side, side), interpolation=cv2.INTER_AREA)
        matrix = chain(matrix, np.array([[1 / factor, 0, 0.5 / factor - 0.5], [0, 1 / factor, 0.5 / factor - 0.5]]))
    corners = transform(matrix, len(rgba) * np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float))
    left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
    right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 2, (width, height))
    if right <= left or bottom <= top:
        return hidden
    local = matrix - np.array([[0, 0, left], [0, 0, top]])
    warped = cv2.warpAffine(rgba, local, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
    region = picture[top:bottom, left:right]
    alpha = warped[..., 3:].astype(np.float32) / 255
    # Outside the cut-out the warp is 0, also in colour, which darkens the rim: alpha weights it away.
    region[:] = (region * (1 - alpha) + warped[..., :3] * alpha + 0.5).astype(np.uint8)
    hidden[top:bottom, left:right] = warped[..., 3] > 127
    return hidden


def degrade(rng: Rng, picture: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """The damage of cameras, generators and the web, each at random: light, colour, blur, low resolution,
    noise, JPEG.

    picture: (H, W, 3) uint8. strength scales how often anything happens; 0 leaves the picture as it is.
    """
    height, width = picture.shape[:2]

    def happens(probability: float) -> bool:
        return bool(rng.random() < probability * strength)

    if happens(0.8):  # exposure, contrast, white balance, gamma, in one table for each channel
        levels = np.arange(256, dtype=np.float32)[:, None] / 255
        cast = rng.normal(0, 0.06 if rng.random() < 0.7 else 0.18, 3)
        gain = rng.uniform(0.6, 1.45) * (1 + cast)
        curve = np.clip(levels * gain, 0, 1) ** rng.uniform(0.6, 1.6)
        curve = np.clip((curve - 0.5) * rng.uniform(0.6, 1.4) + 0.5 + rng.normal(0, 0.06), 0, 1)
        picture = cv2.LUT(picture, (curve * 255).astype(np.uint8)[:, None].reshape(256, 1, 3))
    if happens(0.4):  # light from one side, shadow on a part
        cells = rng.integers(2, 4, 2)
        field = rng.normal(0, rng.uniform(0.1, 0.5), cells).astype(np.float32)
        shade = np.exp(cv2.resize(field - field.mean(), (width, height), interpolation=cv2.INTER_CUBIC))
        picture = np.clip(picture * shade[..., None], 0, 255).astype(np.uint8)
    if happens(0.35):  # less or more colour, down to black and white
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
        share = 0.0 if rng.random() < 0.35 else rng.uniform(0.3, 1.6)
        picture = np.clip(grey + (picture - grey) * share, 0, 255).astype(np.uint8)
    if happens(0.25):
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.6))
    if happens(0.06):  # camera shake
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        cv2.line(kernel, (0, int(rng.integers(length))), (length - 1, int(rng.integers(length))), 1.0)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    if happens(0.3):  # low resolution
        share = rng.uniform(0.3, 0.9)
        small = (max(8, int(width * share)), max(8, int(height * share)))
        down = cv2.resize(picture, small, interpolation=cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR)
        picture = cv2.resize(down, (width, height), interpolation=cv2.INTER_CUBIC)
    if happens(0.15):  # what an autoencoder does: fine texture goes, edges stay
        picture = cv2.bilateralFilter(picture, 5, rng.uniform(15, 60), rng.uniform(1.5, 3))
    if happens(0.2):  # sharpened
        soft = cv2.GaussianBlur(picture, (0, 0), 1.2).astype(np.float32)
        picture = np.clip(picture + rng.uniform(0.3, 1.2) * (picture - soft), 0, 255).astype(np.uint8)
    if happens(0.35):
        noise = rng.standard_normal((height, width, 3 if rng.random() < 0.5 else 1), np.float32)
        picture = np.clip(picture + rng.uniform(1, 12) * noise, 0, 255).astype(np.uint8)
    if happens(0.35):
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 95))]
        picture = cv2.imdecode(cv2.imencode(".jpg", picture[..., ::-1], quality)[1], cv2.IMREAD_COLOR)[..., ::-1]
    return np.ascontiguousarray(picture)


def occlude(rng: Rng, picture: np.ndarray, box: np.ndarray) -> None:
    """Cover up to a third of a face, in place: a hand, hair, a phone, the edge of something."""
    left, top, right, bottom = box
    size = max(right - left, bottom - top)
    x = rng.choice([left, right]) + rng.normal(0, 0.12) * size
    y = rng.uniform(top, bottom + 0.1 * size)
    axes = (int(size * rng.uniform(0.08, 0.3)) + 1, int(size * rng.uniform(0.1, 0.4)) + 1)
    colour = (
        np.array([225, 175, 150]) * rng.uniform(0.3, 1.1) if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    ).tolist()
    if rng.random() < 0.6:
        cv2.ellipse(picture, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
    else:
        low = (int(x - axes[0]), int(y - axes[1]))
        cv2.rectangle(picture, low, (int(x + axes[0]), int(y + axes[1])), colour, -1)


def aligned_crop(
    rng: Rng | None, portrait: Portrait, *, jitter: float = 1.0, background: np.ndarray | None = None
) -> np.ndarray:
    """The face on the ArcFace template, (112, 112, 3) uint8, on a random background.

    The landmarks are shifted as a detector's would be: each by `jitter` pixels of the crop, and all together turned,
    scaled, stretched and shifted a little. Without a generator the crop is exact, on grey, undamaged.
    """
    if rng is None:
        crop = np.full((TEMPLATE_SIZE, TEMPLATE_SIZE, 3), 128, np.uint8)
        paste(crop, portrait.rgba, similarity(portrait.landmarks.astype(np.float64), TEMPLATE))
        return crop
    target = TEMPLATE + rng.normal(0, jitter * rng.uniform(0.3, 2), TEMPLATE.shape)
    matrix = similarity(portrait.landmarks.astype(np.float64), target)
    matrix = chain(_about(rng, TEMPLATE.mean(0), angle=0.05, scale=0.04, stretch=0.02, shift=1.5), matrix)
    if rng.random() < 0.5:
        matrix = chain(MIRROR_CROP, matrix)
    crop = random_background(rng, TEMPLATE_SIZE, TEMPLATE_SIZE) if background is None else background.copy()
    behind = crop.copy()
    paste(crop, portrait.rgba, matrix)
    if rng.random() < ONLY_FACES:
        _cover_around(rng, crop, behind)
    if rng.random() < 0.2:
        occlude(rng, crop, np.array([20, 20, 92, 108]))
    return degrade(rng, crop)


def _cover_around(rng: Rng, crop: np.ndarray, cover: np.ndarray) -> None:
    """Leave only an oval from brows to chin of an aligned crop, in place: who somebody is, is not their hair."""
    middle, axes = rng.normal((56, 72), 2), rng.normal((33, 43), 3)
    mask = np.zeros(crop.shape[:2], np.float32)
    cv2.ellipse(mask, tuple(middle.astype(int)), tuple(axes.astype(int)), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3))[..., None]
    crop[:] = (crop * mask + cover * (1 - mask)).astype(np.uint8)


def _about(rng: Rng, centre: np.ndarray, *, angle: float, scale: float, stretch: float, shift: float) -> np.ndarray:
    """(2, 3) a random turn (radians), scaling, stretch (logarithms) and shift (pixels) of these deviations."""
    turn = rng.normal(0, angle)
    size = np.exp(rng.normal(0, scale))
    wide = np.exp(rng.normal(0, stretch))
    linear = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([wide, 1 / wide])
    return np.column_stack([linear, centre - linear @ centre + rng.normal(0, shift, 2)])


@dataclass(frozen=True, eq=False)
class Scene:
    """picture: (H, W, 3) uint8. box: (F, 4) and landmarks: (F, 5, 2) float32 in pixels. portrait: (F,)
    indices. hidden: (K, 4) float32, boxes of faces mostly behind somebody: neither to be found nor wrong to find.
    """

    picture: np.ndarray
    box: np.ndarray
    landmarks: np.ndarray
    portrait: np.ndarray
    hidden: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))


def random_scene(rng: Rng, portraits: PortraitSet, size: int, *, damaged: bool = True) -> Scene:
    """A square picture of no, one or several people, from 16 px faces to one that fills the frame.

    Some pictures show but a part of one huge face: nothing to find there, as when a detector looks at a close-up in
    its finer view.
    """
    picture = random_background(rng, size, size)
    if rng.random() < CLOSE_UPS:
        portrait = portraits[int(rng.integers(len(portraits)))]
        left, top, right, bottom = portrait.box
        scale = size * np.exp(rng.uniform(np.log(1.8), np.log(5))) / (bottom - top)
        shown = np.array([rng.uniform(left, right), rng.uniform(top, bottom)])  # in the middle of the picture
        angle = rng.normal(0, 0.2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        paste(picture, portrait.rgba, np.column_stack([turn, size / 2 - turn @ shown]))
        if rng.random() < 0.7:  # enlarged skin is smooth, real skin is not
            texture = fractal(rng, size, size)[..., None] * rng.uniform(2, 14)
            picture = np.clip(picture + texture, 0, 255).astype(np.uint8)
        none = np.zeros(0, np.float32)
        picture = degrade(rng, picture) if damaged else picture
        return Scene(picture, none.reshape(0, 4), none.reshape(0, 5, 2), none.astype(np.int64))
    count = int(rng.choice([0, 1, 2, 3, 4, 6, 10], p=[0.08, 0.34, 0.22, 0.14, 0.10, 0.07, 0.05]))
    boxes, landmarks, used, seen, whole = [], [], [], [], []
    if count == 1:
        heights = [size * np.exp(rng.uniform(np.log(0.12), np.log(1.15)))]
    else:
        heights = (
            np.exp(rng.uniform(np.log(16), np.log(size * 0.62), count))
            if rng.random() < 0.4
            else (
                np.exp(rng.uniform(np.log(18), np.log(size * 1.1 / np.sqrt(max(count, 1)) * 0.8)))
                * rng.uniform(0.75, 1.25, count)
            )
        )
    for height in sorted(heights):  # the nearest in front
        index = int(rng.integers(len(portraits)))
        portrait = portraits[index]
        face_height = portrait.box[3] - portrait.box[1]
        for _ in range(8):
            matrix, box, points = _place(rng, portrait, height / face_height, size)
            if all(_overlap(box, other) < 0.12 for other in boxes):
                break
        else:
            continue
        no_face = rng.random() < 0.06  # something of the same colours
        hides = paste(picture, _shuffled(rng, portrait.rgba) if no_face else portrait.rgba, matrix)
        for face in seen:
            face &= ~hides
        if no_face:
            continue
        seen.append(hides & _inside(box, size))
        whole.append(max(1, seen[-1].sum()))
        if rng.random() < 0.12:
            occlude(rng, picture, box)
        boxes.append(box)
        landmarks.append(points)
        used.append(index)
    if damaged:
        picture = degrade(rng, picture)
    kept = np.array([face.sum() for face in seen]) >= VISIBLE * np.array(whole)
    box = np.array(boxes, np.float32).reshape(-1, 4)
    return Scene(
        picture,
        box[kept],
        np.array(landmarks, np.float32).reshape(-1, 5, 2)[kept],
        np.array(used, np.int64)[kept],
        hidden=box[~kept],
    )


def _place(rng: Rng, portrait: Portrait, scale: float, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mirror, stretch, turn and shift a portrait: matrix, box and landmarks in the scene."""
    points, box = portrait.landmarks.astype(np.float64), portrait.box.astype(np.float64)
    mirror = np.eye(2, 3)
    if rng.random() < 0.5:
        last = portrait.rgba.shape[1] - 1
        mirror[0] = [-1, 0, last]
        points = np.column_stack([last - points[:, 0], points[:, 1]])[MIRRORED]
        box = np.array([last - box[2], box[1], last - box[0], box[3]])
    angle = rng.normal(0, 0.18) if rng.random() < 0.85 else rng.uniform(-0.8, 0.8)
    stretch = np.exp(rng.normal(0, 0.05))
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = turn @ np.diag([stretch, 1 / stretch])
    middle = (box[:2] + box[2:]) / 2
    extent = (box[2:] - box[:2]) * scale / 2
    # Faces may be cut by the frame, but not by more than a fifth.
    low, high = np.minimum(extent * 0.8, size / 2), np.maximum(size - extent * 0.8, size / 2)
    matrix = np.column_stack([turn, rng.uniform(low, high) - turn @ middle])
    outline = np.array([[0, -1], [0.75, -0.65], [1, 0], [0.7, 0.7], [0, 1], [-0.7, 0.7], [-1, 0], [-0.75, -0.65]])
    around = transform(matrix, middle + outline * (box[2:] - box[:2]) / 2)
    return chain(matrix, mirror), np.concatenate([around.min(0), around.max(0)]), transform(matrix, points)


def _inside(box: np.ndarray, size: int) -> np.ndarray:
    """(size, size) bool: the pixels in a box."""
    mask = np.zeros((size, size), bool)
    left, top, right, bottom = np.clip(box.round().astype(int), 0, size)
    mask[top:bottom, left:right] = True
    return mask


def _overlap(box: np.ndarray, other: np.ndarray) -> float:
    """Share of `box` that `other` covers."""
    low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
    return float(np.prod(np.maximum(high - low, 0)) / max(np.prod(box[2:] - box[:2]), 1e-6))


def _shuffled(rng: Rng, rgba: np.ndarray) -> np.ndarray:
    """The same pixels in another order: 16 tiles shuffled."""
    side = len(rgba) // 4
    tiles = [rgba[y * side : (y + 1) * side, x * side : (x + 1) * side] for y in range(4) for x in range(4)]
    order = rng.permutation(16)
    return np.concatenate([np.concatenate([tiles[order[4 * y + x]] for x in range(4)], 1) for y in range(4)], 0)
