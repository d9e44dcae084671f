"""What a camera sees of a scene: projection, the nearest surface of every sample, one point for each pixel and part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.people import raster
from trainers.people.camera import Camera
from trainers.people.identity import Person
from trainers.people.mesh import Body
from trainers.people.strands import Strands, strand_keys, visible_points
from trainers.people.surface import EXTRA_CHANNELS, Part, smoothstep, unit, vertex_normals

# Samples of one part in one pixel that lie further apart than this (dm) are shaded apart: a nose before its cheek.
_ONE_SURFACE = 0.08
_CHANNELS = 9 + EXTRA_CHANNELS  # template, position, normal, extra


@dataclass(frozen=True, eq=False)
class Actor:
    """A person with the geometry that does not depend on the camera."""

    person: Person
    body: Body
    parts: tuple[Part, ...]

    @property
    def position(self) -> Tensor:
        return torch.tensor(self.person.appearance.position, device=self.body.vertices.device)


class View:
    """Projection of the scene into samples. rows and columns count samples, height and width pixels."""

    def __init__(self, camera: Camera, height: int, width: int, samples: int, device: torch.device) -> None:
        self.height, self.width, self.samples = height, width, samples
        self.rows, self.columns = height * samples, width * samples
        self.pixels, self.sample_count = height * width, height * width * samples**2
        self._target = torch.tensor(camera.target, device=device)
        self._depth_of_target = camera.target[2]
        self._distance, self._focal = camera.distance, camera.focal * self.rows
        self.eye = self._target + torch.tensor([0.0, 0.0, camera.distance], device=device)

    def project(self, positions: Tensor) -> Tensor:
        """(..., 3) scene -> x, y in samples from the middle of the first one, depth."""
        x, y, z = (positions - self._target).unbind(-1)
        depth = self._distance - z
        scale = self._focal / depth.clamp(min=1e-3)
        return torch.stack([self.columns / 2 - 0.5 + x * scale, self.rows / 2 - 0.5 - y * scale, depth], -1)

    def to_pixels(self, positions: Tensor) -> Tensor:
        """(..., 3) scene -> (..., 2) pixel coordinates, 0 the outer edge of the first pixel."""
        return (self.project(positions)[..., :2] + 0.5) / self.samples

    def footprint(self, z: Tensor) -> Tensor:
        """(P,) dm that a pixel covers at scene depth z."""
        return (self._distance + self._depth_of_target - z) * (self.samples / self._focal)

    @property
    def pixels_per_dm(self) -> float:
        """At the camera's target."""
        return self._focal / (self._distance * self.samples)

    def samples_per_dm(self, position: Tensor) -> float:
        return float(self._focal / (self._distance + self._depth_of_target - position[2]))

    def by_pixel(self, values: Tensor) -> Tensor:
        """(samples,) -> (samples per pixel, pixels)."""
        n = self.samples
        return values.reshape(self.height, n, self.width, n).permute(1, 3, 0, 2).reshape(n * n, self.pixels)

    def sample_of(self, pixel: Tensor, within: Tensor) -> Tensor:
        """(P,) sample index of the within-th sample of each pixel."""
        n = self.samples
        row = torch.div(pixel, self.width, rounding_mode="floor") * n + torch.div(within, n, rounding_mode="floor")
        return row * self.columns + pixel % self.width * n + within % n

    def depth_image(self, keys: Tensor) -> Tensor:
        """(1, 1, H, W) depth of the first sample of each pixel, the background a little behind the people."""
        first = keys.reshape(self.height, self.samples, self.width, self.samples)[:, 0, :, 0].reshape(-1)
        depth = raster.depth_image(first, self._distance + 1.5)
        return depth.reshape(1, 1, self.height, self.width)


@dataclass(frozen=True, eq=False)
class Points:
    """One point for each pixel, part and surface. pixel, person, material: (P,); share: (P,) of the pixel that it
    covers; template, position, normal: (P, 3); extra: (P, EXTRA_CHANNELS)."""

    pixel: Tensor
    person: Tensor
    material: Tensor
    share: Tensor
    template: Tensor
    position: Tensor
    normal: Tensor
    extra: Tensor

    def __len__(self) -> int:
        return len(self.pixel)

    def at(self, chosen: Tensor) -> Points:
        return Points(*(getattr(self, f.name)[chosen] for f in fields(self)))

    @classmethod
    def joined(cls, several: Sequence[Points]) -> Points:
        return cls(*(torch.cat([getattr(points, f.name) for points in several]) for f in fields(cls)))


@dataclass(frozen=True, eq=False)
class Triangles:
    """Some triangles of a scene. faces: (m, 3); part: (m,) number of the part; two_sided: (m,)."""

    faces: Tensor
    part: Tensor
    two_sided: Tensor

    @classmethod
    def joined(cls, several: Sequence[Triangles]) -> Triangles:
        return cls(*(torch.cat([getattr(t, name) for t in several]) for name in ("faces", "part", "two_sided")))


class Scene:
    """All triangles and strands of all people, in scene space. Parts are numbered: meshes first, then strands."""

    def __init__(self, actors: Sequence[Actor], strands: Sequence[tuple[int, Strands]], device: torch.device) -> None:
        self.actors = actors
        self.strands = [(i, replace(s, knots=s.knots + actors[i].position)) for i, s in strands]
        meshes = [(i, part) for i, actor in enumerate(actors) for part in actor.parts]
        rows, cuts, sheets = [], [], []
        offset = 0
        for number, (index, part) in enumerate(meshes):
            count = len(part.vertices)
            normals = part.normals if part.normals is not None else vertex_normals(part.vertices, part.faces)
            extra = part.extra if part.extra is not None else part.vertices.new_zeros(count, 0)
            extra = F.pad(extra, (0, EXTRA_CHANNELS - extra.shape[1]))
            rows.append(torch.cat([part.template, part.vertices + actors[index].position, normals, extra], 1))
            cuts.append(part.cut if part.cut is not None else part.vertices.new_ones(count))
            labels = torch.full_like(part.faces[:, 0], number), torch.full_like(part.faces[:, 0], part.two_sided)
            sheets.append((part, Triangles(part.faces + offset, labels[0], labels[1].bool())))
            offset += count
        self._channels = torch.cat(rows)
        self.positions = self._channels[:, 3:6].contiguous()
        self.cut = torch.cat(cuts)
        self.opaque = Triangles.joined([t for part, t in sheets if not part.blended])
        self.blended = Triangles.joined([t for part, t in sheets if part.blended])
        self.casters = Triangles.joined([t for part, t in sheets if part.casts_shadow and not part.blended])
        self.first_strand = len(meshes)
        owners = [index for index, _ in meshes] + [index for index, _ in self.strands]
        materials = [int(part.material) for _, part in meshes] + [int(s.material) for _, s in self.strands]
        self._owner = torch.tensor(owners, device=device)
        self._material = torch.tensor(materials, device=device)

    def points(self, pixel: Tensor, part: Tensor, share: Tensor, channels: Tensor) -> Points:
        template, position, normal, extra = channels.split([3, 3, 3, EXTRA_CHANNELS], 1)
        return Points(pixel, self._owner[part], self._material[part], share, template, position, normal, extra)

    def on_triangles(self, triangles: Triangles, visible: raster.Visible) -> Tensor:
        """(S, _CHANNELS) interpolated on visible triangles."""
        corners = triangles.faces[visible.face]
        weights = visible.weights
        return sum(self._channels[corners[:, k]] * weights[:, k : k + 1] for k in range(3))

    def on_strands(self, number: int, keys: Tensor, count: int) -> Tensor:
        """(S, _CHANNELS) on the strands of a part, of winning (S,) keys with `count` points on each strand."""
        index, strands = self.strands[number]
        actor = self.actors[index]
        points = visible_points(keys, torch.full_like(keys, raster.EMPTY), count)
        position = points.at(strands.knots)
        # Hair is lit like the ball it lies around, hanging hair like a column.
        head, crown = actor.body.joint("head"), actor.body.joint("head-2")
        outward = position - (head + actor.position + 0.24 * (crown - head))
        hanging = smoothstep(0.0, -0.9, outward[:, 1])
        outward = unit(torch.stack([outward[:, 0], outward[:, 1] * (1 - hanging), outward[:, 2]], 1))
        of = points.strand
        own = [strands.tone[of], strands.layer[of], points.along, strands.pigment[of], strands.kind[of]]
        extra = torch.cat([torch.stack(own, 1), points.direction(strands.knots)], 1)
        return torch.cat([points.at(strands.template), position, outward, extra], 1)


@dataclass(frozen=True, eq=False)
class Seen:
    """points: of the opaque surfaces; keys: (samples,) the nearest opaque surface of each sample."""

    points: Points
    keys: Tensor


def look(scene: Scene, view: View) -> Seen:
    """The opaque surfaces that the view shows."""
    screen = view.project(scene.positions)
    triangles = scene.opaque
    found = raster.fragments(screen, triangles.faces, view.rows, view.columns, cull=~triangles.two_sided, cut=scene.cut)
    keys = raster.nearest(found, view.sample_count)
    # The part of each sample, -1 for none.
    part = torch.full_like(keys, -1)
    hit = (keys != raster.EMPTY).nonzero()[:, 0]
    part[hit] = triangles.part[keys[hit] & raster.FACE_BITS]
    points_per_strand = []
    for number, (_, s) in enumerate(scene.strands):
        wide = view.samples if s.casts_shadow else 1
        strand_key, count = strand_keys(view.project(s.knots), view.rows, view.columns, wide=wide)
        part.masked_fill_(strand_key < keys, scene.first_strand + number)
        keys = torch.minimum(keys, strand_key)
        points_per_strand.append(count)
    pixel, within, share = _one_point_each(view.by_pixel(part), raster.depth_image(view.by_pixel(keys), 0.0))
    sample = view.sample_of(pixel, within)
    part, chosen = part[sample], keys[sample]
    channels = torch.empty(len(sample), _CHANNELS, device=keys.device)
    on_mesh = (part < scene.first_strand).nonzero()[:, 0]
    visible = raster.unpack(sample[on_mesh], chosen[on_mesh], screen, triangles.faces, view.columns)
    channels[on_mesh] = scene.on_triangles(triangles, visible)
    for number, count in enumerate(points_per_strand):
        own = (part == scene.first_strand + number).nonzero()[:, 0]
        channels[own] = scene.on_strands(number, chosen[own], count)
    return Seen(scene.points(pixel, part, share, channels), keys)


def look_through(scene: Scene, view: View, opaque: Tensor, layers: int) -> list[Points]:
    """The nearest blended surfaces in front of the opaque (samples,) keys, nearest layer first."""
    triangles = scene.blended
    screen = view.project(scene.positions)
    found = raster.fragments(screen, triangles.faces, view.rows, view.columns, cull=~triangles.two_sided, cut=scene.cut)
    found = raster.in_front(found, opaque)
    # Few samples have any: number those alone.
    samples, sample = found.sample.unique(return_inverse=True)
    found = raster.Fragments(sample, found.key)
    behind, seen = None, []
    for _ in range(layers):
        behind = raster.nearest(found, len(samples), behind=behind)
        hit = (behind != raster.EMPTY).nonzero()[:, 0]
        visible = raster.unpack(samples[hit], behind[hit], screen, triangles.faces, view.columns)
        row = torch.div(visible.sample, view.columns * view.samples, rounding_mode="floor")
        pixel = row * view.width + torch.div(visible.sample % view.columns, view.samples, rounding_mode="floor")
        label, point = (pixel * scene.first_strand + triangles.part[visible.face]).unique(return_inverse=True)
        channels = torch.zeros(len(label), _CHANNELS + 1, device=screen.device)
        own = F.pad(scene.on_triangles(triangles, visible), (0, 1), value=1.0)
        channels.index_add_(0, point, own)
        count = channels[:, -1:]
        pixel = torch.div(label, scene.first_strand, rounding_mode="floor")
        share = count[:, 0] / view.samples**2
        seen.append(scene.points(pixel, label % scene.first_strand, share, channels[:, :-1] / count))
    return seen


def _one_point_each(part: Tensor, depth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples that stand for the others of their pixel, part and surface: pixel, within (which of its samples) and
    the share of the pixel they stand for, (P,) each. part and depth: (samples per pixel, pixels)."""
    count, pixels = part.shape
    first = torch.arange(count, device=part.device)[:, None].expand_as(part).clone()
    for later in range(1, count):
        for earlier in range(later - 1, -1, -1):
            same = (part[later] == part[earlier]) & ((depth[later] - depth[earlier]).abs() < _ONE_SURFACE)
            first[later] = torch.where(same, first[earlier], first[later])
    stands = (first == torch.arange(count, device=part.device)[:, None]) & (part >= 0)
    weight = torch.zeros(count, pixels, device=part.device)
    weight.scatter_add_(0, first, (part >= 0).float())
    within, pixel = stands.nonzero().unbind(1)
    return pixel, within, weight[within, pixel] / count
