"""The MakeHuman mesh (CC0): morphing it to one person at one age, and posing it.

The file is found through the environment variable IDGLOW_PEOPLE_MESH, else at ../shared/people/people_mesh.npz
beside the repository root; `python -m trainers.people.extract` makes it.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.people.beard import FaceRoots
from trainers.people.cloth import Suit
from trainers.people.eyes import Lashes
from trainers.people.identity import Identity, Person
from trainers.people.raster import depth_image, fragments, nearest
from trainers.people.scalp import Scalp
from trainers.people.shape import SHAPE_TARGETS
from trainers.people.surface import bump, smoothstep, unit, vertex_normals

MESH_VARIABLE = "IDGLOW_PEOPLE_MESH"
_AGE_KEYS = (("baby", 1.0), ("child", 11.0), ("young", 25.0), ("old", 80.0))
_HEAD_CENTRE, _HEAD_EXTENT = (0.0, 0.2, 0.2), 2.2  # template dm
_ETHNICITIES = ("african", "asian", "caucasian")
# Original MakeHuman vertex ids of the points that face detectors mark besides the eyes.
NOSE_TIP, LEFT_MOUTH_CORNER, RIGHT_MOUTH_CORNER = 297, 7185, 425


class MeshMissing(FileNotFoundError):
    """The mesh file is not there."""


def find_mesh() -> Path:
    """Path of people_mesh.npz. Raises MeshMissing with what to do."""
    named = os.environ.get(MESH_VARIABLE)
    path = Path(named) if named else Path(__file__).parents[3] / "shared" / "people" / "people_mesh.npz"
    if not path.is_file():
        raise MeshMissing(
            f"No people mesh at {path}. Make it with `python -m trainers.people.extract` and put its path into "
            f"{MESH_VARIABLE}."
        )
    return path


class PeopleMesh:
    """The base mesh with its morph targets. Tensors live on `device`.

    template: (n, 3) the average young adult, origin at the head joint. masks: name -> (n,) 0..1 (lips, ears, eyelids,
    inside-mouth, face). faces_of(part): (m, 3) triangles of a named part ("body", "helper-tights", ...).
    """

    def __init__(self, path: Path | str | None = None, *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        with np.load(path or find_mesh()) as data:
            # The file also has meshes of hair and clothes, which are made of strands and cut suits here.
            arrays = {name: data[name] for name in data.files if not name.startswith("P_")}
        self._base = self._floats(arrays["V"])
        self._macros = self._floats(arrays["macro"]).reshape(len(arrays["macro"]), -1)
        self._macro_index = {str(name): i for i, name in enumerate(arrays["macro_names"])}
        self._detail_index = {str(name): i for i, name in enumerate(arrays["det_names"])}
        # Detail targets are sparse: target k has the rows of offsets from _detail_rows[k][0] up to _detail_rows[k][1].
        self._detail_rows = list(pairwise(arrays["det_ptr"].tolist()))
        self._detail_vertex = self._ints(arrays["det_i"])
        self._detail_offset = self._floats(arrays["det_d"])
        self._joints = {k[2:]: self._ints(v) for k, v in arrays.items() if k.startswith("J_")}
        self._part_names = [str(name) for name in arrays["partnames"]]
        self._part = self._ints(arrays["part"])
        self._faces = self._ints(arrays["tri"])
        self.masks = {k[5:]: self._floats(v) for k, v in arrays.items() if k.startswith("mask_")}
        self._vertex_of = {int(original): i for i, original in enumerate(arrays["orig"])}
        average = self._base.clone()
        for sex in ("female", "male"):
            for name in (f"caucasian-{sex}-young", f"universal-{sex}-young-averagemuscle-averageweight"):
                average = average + 0.5 * self._macros[self._macro_index[name]].reshape(-1, 3)
        self.template = average - self._joint(average, "head")
        self._shape_columns = self._resolve_shape_targets()
        self._compact: dict[tuple[str, ...], tuple[Tensor, Tensor]] = {}

    @property
    def vertex_count(self) -> int:
        return len(self._base)

    def vertex(self, original: int) -> int:
        """Index of the vertex that MakeHuman's base.obj numbers `original` (from 0)."""
        return self._vertex_of[original]

    def faces_of(self, *names: str) -> Tensor:
        wanted = self._ints(np.array([self._part_names.index(name) for name in names]))
        return self._faces[torch.isin(self._part, wanted)]

    def vertices_of(self, *names: str) -> Tensor:
        """(k,) indices of the vertices of the named parts."""
        return self.faces_of(*names).unique()

    def compact(self, *names: str) -> tuple[Tensor, Tensor]:
        """(k,) vertices of the named parts and (m, 3) their faces as indices into those."""
        if names not in self._compact:
            self._compact[names] = self.faces_of(*names).unique(return_inverse=True)
        return self._compact[names]

    def morph(self, identity: Identity, age: float, expression: dict[str, float] | None = None) -> Tensor:
        """(n, 3) unposed vertices of one identity at `age` years with expression units (name -> 0..1)."""
        macros: dict[int, float] = defaultdict(float)
        for name, weight in self._macro_weights(identity, age):
            macros[self._macro_index[name]] += weight
        details: dict[int, float] = defaultdict(float)
        for (negative, positive), value in zip(self._shape_columns, identity.shape_at(age), strict=True):
            for column in positive if value > 0 else negative:
                details[column] += abs(value)
        for unit_name, weight in (expression or {}).items():
            for ethnicity, share in zip(_ETHNICITIES, identity.ethnicity, strict=True):
                details[self._detail_index[f"expr/{ethnicity}/{unit_name}"]] += weight * share
        weights = torch.tensor(list(macros.values()), device=self.device)
        vertices = self._base + (weights @ self._macros[list(macros)]).reshape(-1, 3)
        used = [(self._detail_rows[k], weight) for k, weight in details.items() if weight]
        if not used:
            return vertices
        rows = np.concatenate([np.arange(first, last) for (first, last), _ in used])
        scale = np.repeat([weight for _, weight in used], [last - first for (first, last), _ in used])
        rows, scale = self._ints(rows), self._floats(scale)
        return vertices.index_add_(0, self._detail_vertex[rows], self._detail_offset[rows] * scale[:, None])

    def body(self, person: Person) -> Body:
        """The morphed and posed body of a person, origin at the base of the neck."""
        return Body(self, person)

    def _macro_weights(self, identity: Identity, age: float) -> list[tuple[str, float]]:
        muscle = _split(identity.muscle, "minmuscle", "averagemuscle", "maxmuscle")
        weight = _split(identity.weight, "minweight", "averageweight", "maxweight")
        found = []
        for sex, sex_share in (("female", 1 - identity.masculinity), ("male", identity.masculinity)):
            for age_name, age_share in _age_shares(age):
                share = sex_share * age_share
                for ethnicity, part in zip(_ETHNICITIES, identity.ethnicity, strict=True):
                    found.append((f"{ethnicity}-{sex}-{age_name}", share * part))
                for m, m_share in muscle:
                    for w, w_share in weight:
                        found.append((f"universal-{sex}-{age_name}-{m}-{w}", share * m_share * w_share))
        return [(name, weight) for name, weight in found if weight]

    def _resolve_shape_targets(self) -> list[tuple[list[int], list[int]]]:
        columns = []
        for target in SHAPE_TARGETS:
            group, stem = target.name.split("/")
            stems = [stem]
            if f"{group}/l-{stem}-{target.positive}" in self._detail_index:
                stems = [f"l-{stem}", f"r-{stem}"]
            ends = [[target.negative] if target.negative else [], [target.positive]]
            columns.append(
                tuple(
                    [self._detail_index[f"{group}/{s}-{end}" if end else f"{group}/{s}"] for s in stems for end in e]
                    for e in ends
                )
            )
        return columns

    @cached_property
    def scalp(self) -> Scalp:
        return Scalp(self)

    @cached_property
    def face_roots(self) -> FaceRoots:
        return FaceRoots(self)

    @cached_property
    def suit(self) -> Suit:
        return Suit(self)

    @cached_property
    def lashes(self) -> Lashes:
        return Lashes.of(self)

    @cached_property
    def bare_skin(self) -> tuple[Tensor, Tensor]:
        """(k,) vertices and (m, 3) faces (indices into those) of the body without the trunk, which garments hide."""
        faces = self.faces_of("body")
        corners = self.template[faces]
        bare = (corners[..., 1].amax(1) > -2.7) | (corners[..., 0].abs().amax(1) > 2.0)
        return faces[bare].unique(return_inverse=True)

    @cached_property
    def skin_fields(self) -> Tensor:
        """(k, 7) of the vertices of `bare_skin`: the masks of lips, ears, eyelids and inside
        of the mouth, the open sky, and closeness to the roots of the upper and of the lower lashes."""
        index, faces = self.bare_skin
        place = self.template[index]
        masks = [self.masks[name][index] for name in ("lips", "ears", "eyelids", "inside-mouth")]
        roots = self.template[self.lashes.vertices][self.lashes.along < 0.25]
        upper = self.lashes.upper[self.lashes.along < 0.25] > 0.5
        near = [bump(torch.cdist(place, roots[row]).amin(1) ** 2, 0.011) for row in (upper, ~upper)]
        return torch.stack([*masks, open_sky(place, faces), *near], 1)

    @cached_property
    def face_outline(self) -> Tensor:
        """(k,) vertices of the face from the chin to the forehead, as face detectors box it."""
        x, y, z = self.template.unbind(1)
        inside = (y > -0.66) & (y < 0.85) & (z > 0.25) & (x.abs() < 0.80)
        body = self.vertices_of("body")
        return body[inside[body]]

    @cached_property
    def pose_weights(self) -> PoseWeights:
        return PoseWeights.of(self.template)

    def _joint(self, vertices: Tensor, name: str) -> Tensor:
        return vertices[self._joints[name]].mean(0)

    def _floats(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(self.device)

    def _ints(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array).astype(np.int64)).to(self.device)


@dataclass(frozen=True, eq=False)
class PoseWeights:
    """How much each point follows the neck, the head and the arms, (k, 1) each; from template coordinates."""

    neck: Tensor
    head: Tensor
    left_arm: Tensor | None
    right_arm: Tensor | None

    @classmethod
    def of(cls, template: Tensor, *, arms: bool = True) -> PoseWeights:
        x, y, z = template.unbind(1)
        neck = smoothstep(-1.75, -0.75, y + 0.12 * z)
        head = smoothstep(-0.95, -0.05, y + 0.35 * z)
        if not arms:
            return cls(neck[:, None], head[:, None], None, None)
        both = [_arm_weight(side * x, y) for side in (1, -1)]
        return cls(*(w[:, None] for w in (neck, head, *both)))


def _arm_weight(x: Tensor, y: Tensor) -> Tensor:
    # In the plane of the body: along the upper arm from the shoulder joint, and across it towards the ribs.
    along = (x - 1.72) * 0.664 + (y + 1.98) * -0.747
    towards_ribs = (x - 1.72) * -0.747 + (y + 1.98) * -0.664
    return smoothstep(-0.45, 0.75, along) * smoothstep(0.85, 0.45, towards_ribs - 0.08 * along.clamp(min=0))


class Body:
    """One person's body: morphed, posed, with the origin at the base of the neck.

    rest: (n, 3) unposed; vertices: (n, 3) posed. head_rotation: (3, 3). Geometry modules place points
    beside `rest` and carry them along with `pose`.
    """

    def __init__(self, mesh: PeopleMesh, person: Person) -> None:
        self.mesh, self.person = mesh, person
        self.rest = mesh.morph(person.identity, person.appearance.age, person.expression_units)
        look = person.appearance
        self._neck, self._head = mesh._joint(self.rest, "neck"), mesh._joint(self.rest, "head")
        self._shoulders = [mesh._joint(self.rest, f"{side}-shoulder") for side in "lr"]
        self._turn = _rotation(look.turn, 0.0, look.lean, mesh.device)
        self._neck_turn = _rotation(0.45 * look.yaw, 0.45 * look.pitch, 0.45 * look.roll, mesh.device)
        head_turn = _rotation(0.55 * look.yaw, 0.55 * look.pitch, 0.55 * look.roll, mesh.device)
        self._head_turn = head_turn
        self.head_rotation = self._turn @ self._neck_turn @ head_turn
        # At rest the arms point 48 degrees away from straight down.
        self._arm_turns = [
            _rotation(0.0, 0.0, side * (raised - math.radians(40)), mesh.device)
            for side, raised in zip((1, -1), look.arms, strict=True)
        ]
        self.vertices = self._posed(self.rest, mesh.pose_weights)

    def pose(self, points: Tensor, template: Tensor, *, arms: bool = True) -> Tensor:
        """(k, 3) points given beside `rest` carried along by the pose; template: their (k, 3) template coordinates.
        `arms` False: they do not follow the arms."""
        return self._posed(points, PoseWeights.of(template, arms=arms))

    def joint(self, name: str) -> Tensor:
        """(3,) posed joint: head, head-2 (crown), neck, jaw, mouth, l-eye, r-eye, l-shoulder, r-shoulder, ..."""
        return self.mesh._joint(self.vertices, name)

    def rest_joint(self, name: str) -> Tensor:
        """(3,) the same before the pose."""
        return self.mesh._joint(self.rest, name)

    @cached_property
    def eyes(self) -> dict[str, tuple[Tensor, Tensor]]:
        """ "l" and "r" (the person's own left and right) -> centre (3,) and radius () of the eyeball."""
        return {side: self._eye(self.vertices, side) for side in "lr"}

    @cached_property
    def landmarks(self) -> Tensor:
        """(5, 3) eye, eye, nose tip, mouth corner, mouth corner, as the picture shows them from left to right for an
        unturned head: the person's right side comes first."""
        forward = self.head_rotation[:, 2]
        eyes = [centre + forward * radius for centre, radius in (self.eyes["r"], self.eyes["l"])]
        points = [NOSE_TIP, RIGHT_MOUTH_CORNER, LEFT_MOUTH_CORNER]
        return torch.stack([*eyes, *(self.vertices[self.mesh.vertex(p)] for p in points)])

    def _eye(self, vertices: Tensor, side: str) -> tuple[Tensor, Tensor]:
        ball = vertices[self.mesh.compact(f"helper-{side}-eye")[0]]
        low, high = ball.amin(0), ball.amax(0)
        return (low + high) / 2, (high - low).amin() / 2

    def _posed(self, points: Tensor, weights: PoseWeights) -> Tensor:
        for weight, joint, turn in (
            (weights.left_arm, self._shoulders[0], self._arm_turns[0]),
            (weights.right_arm, self._shoulders[1], self._arm_turns[1]),
            (weights.head, self._head, self._head_turn),
            (weights.neck, self._neck, self._neck_turn),
        ):
            if weight is not None:
                points = points + weight * ((points - joint) @ turn.T + joint - points)
        return (points - self._neck) @ self._turn.T


def open_sky(vertices: Tensor, faces: Tensor, *, directions: int = 40, size: int = 256) -> Tensor:
    """(n,) 0..1 how much of the light from all around reaches each vertex of a (template) head past the mesh itself."""
    normals = vertex_normals(vertices, faces)
    place = vertices - torch.tensor(_HEAD_CENTRE, device=vertices.device)
    seen = torch.zeros(len(vertices), device=vertices.device)
    possible = torch.full_like(seen, 1e-6)
    for i in range(directions):
        # Fibonacci points on the sphere.
        height, around = 1 - (2 * i + 1) / directions, i * math.pi * (3 - math.sqrt(5))
        flat = math.sqrt(1 - height * height)
        towards = torch.tensor([math.cos(around) * flat, height, math.sin(around) * flat], device=vertices.device)
        beside = torch.tensor([0.0, 0.0, 1.0] if abs(height) > 0.9 else [0.0, 1.0, 0.0], device=vertices.device)
        across = unit(torch.linalg.cross(beside, towards))
        x, y, z = (place @ torch.stack([across, torch.linalg.cross(towards, across), -towards], 1)).unbind(1)
        scale = (size - 1) / (2 * _HEAD_EXTENT)
        screen = torch.stack([(x + _HEAD_EXTENT) * scale, (y + _HEAD_EXTENT) * scale, z + 20], 1)
        depth = depth_image(nearest(fragments(screen, faces, size, size), size * size), 1e3)
        grid = (screen[:, :2] / (size - 1) * 2 - 1)[None, None]
        front = F.grid_sample(depth.reshape(1, 1, size, size), grid, align_corners=True, padding_mode="border")[0, 0, 0]
        cosine = (normals @ towards).clamp(min=0)
        seen += cosine * smoothstep(0.08, 0.025, screen[:, 2] - front)
        possible += cosine
    inside = place.abs().amax(1) < _HEAD_EXTENT
    return torch.where(inside, seen / possible, torch.ones_like(seen))


def _age_shares(age: float) -> list[tuple[str, float]]:
    for (young, start), (old, end) in pairwise(_AGE_KEYS):
        if start <= age <= end:
            share = (age - start) / (end - start)
            return [(young, 1 - share), (old, share)]
    raise ValueError(f"age {age} is outside 1..80 years")


def _split(value: float, low: str, middle: str, high: str) -> list[tuple[str, float]]:
    return [(middle, 1 - abs(value)), (high if value > 0 else low, abs(value))]


def _rotation(yaw: float, pitch: float, roll: float, device: torch.device) -> Tensor:
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return torch.tensor(about_y @ about_x @ about_z, dtype=torch.float32, device=device)
