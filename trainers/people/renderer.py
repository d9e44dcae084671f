"""Pictures of rendered people: geometry, visibility, materials and light of a whole scene.

How modules plug in:
- A *geometry* module has a function `parts(body) -> list[Part]` (cloth.clothes, accessories.glasses, accessories.hat,
  eyes.parts, skin.part) or, for hair, `strands(body, samples_per_dm) -> list[Strands]`; `Renderer.build` and
  `Renderer.render` call them. `mesh.Body` carries the posed mesh and helps to fit other meshes to it.
- A *material* module has a function `shade(points: SurfacePoints) -> Surface`, listed in SHADERS. It is called once for
  all seen points of its material, of all people.

A picture is made in these steps: build -> project -> nearest surface of every sample (raster) -> one point for each
pixel and part -> shadows -> materials -> light -> subsurface scattering -> blended layers -> exposure -> sRGB.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.people import accessories, cloth, eyes, hair, lighting, raster, skin
from trainers.people.camera import Camera
from trainers.people.identity import Person
from trainers.people.lighting import Light
from trainers.people.mesh import Body, PeopleMesh
from trainers.people.strands import Strands, strand_keys, visible_points
from trainers.people.surface import (
    EXTRA_CHANNELS,
    Material,
    Noise,
    Part,
    Surface,
    SurfacePoints,
    smoothstep,
    unit,
    vertex_normals,
)

SHADERS: dict[Material, Callable[[SurfacePoints], Surface]] = {
    Material.SKIN: skin.shade,
    Material.EYE: eyes.shade_eye,
    Material.LASHES: eyes.shade_lashes,
    Material.TEETH: eyes.shade_teeth,
    Material.TONGUE: eyes.shade_tongue,
    Material.HAIR: hair.shade,
    Material.CLOTH: cloth.shade,
    Material.HAT: accessories.shade_hat,
    Material.GLASSES: accessories.shade_glasses,
    Material.LENS: accessories.shade_lens,
}
BLENDED_LAYERS = 2
# Interpolated for every seen point: template 3, position 3, normal 3, uv 2, extra.
_CHANNELS = 11 + EXTRA_CHANNELS
_FACE_IRRADIANCE = 1.0  # what a correctly exposed face of average albedo receives
_AVERAGE_ALBEDO = 0.30
_SHADOW_TAPS = ((-0.9, -0.5), (0.7, -0.9), (0.9, 0.6), (-0.6, 0.9), (-2.1, 0.4), (2.1, -0.3), (0.3, 2.2), (-0.4, -2.1))


@dataclass(frozen=True, eq=False)
class Actor:
    """A person with the geometry that does not depend on the camera."""

    person: Person
    body: Body
    parts: tuple[Part, ...]

    @property
    def position(self) -> Tensor:
        return torch.tensor(self.person.appearance.position, device=self.body.vertices.device)


@dataclass(frozen=True, eq=False)
class Rendered:
    """picture: (H, W, 3) uint8 sRGB. people: (H, W) int64 index of the person that a pixel shows, -1 background.
    cover: (H, W) share of a pixel that people cover, 0..1.
    boxes: (N, 4) faces as detectors box them, x0, y0, x1, y1 in pixels, partly outside the picture perhaps.
    landmarks: (N, 5, 2) eye, eye, nose tip, mouth corner, mouth corner; the person's right first.
    visible: (N,) share of the face box inside the picture that the person itself covers, 0..1."""

    picture: Tensor
    people: Tensor
    cover: Tensor
    boxes: Tensor
    landmarks: Tensor
    visible: Tensor


class Renderer:
    """Renders people with one mesh on the mesh's device. Stateless between pictures: equal input, equal bytes."""

    def __init__(self, mesh: PeopleMesh | None = None) -> None:
        self.mesh = mesh or PeopleMesh()
        self.device = self.mesh.device
        self._noise = Noise(self.device)

    def build(self, people: Sequence[Person]) -> list[Actor]:
        """Bodies and their parts: the slow part of the geometry, once for each picture."""
        return [self._actor(person) for person in people]

    def _actor(self, person: Person) -> Actor:
        body = self.mesh.body(person)
        parts = [skin.part(body), *eyes.parts(body)]
        parts += [*cloth.clothes(body), *accessories.glasses(body), *accessories.hat(body)]
        return Actor(person, body, tuple(parts))

    @torch.no_grad()
    def render(
        self,
        actors: Sequence[Actor],
        camera: Camera,
        light: Light,
        background: Tensor,
        *,
        samples: int = 2,
    ) -> Rendered:
        """One picture. background: (H, W, 3) linear RGB; its size is the picture's. samples: per pixel side."""
        height, width, _ = background.shape
        view = _View(camera, height, width, samples, self.device)
        # 1. Everything as one mesh, and strands of hair as fine as the picture can show.
        scene = _Scene(actors, self.device)
        screen = view.project(scene.positions)
        strands = [
            (index, replace(s, knots=s.knots + actor.position))
            for index, actor in enumerate(actors)
            for s in hair.strands(actor.body, view.samples_per_dm(actor.position))
        ]
        # 2. What each sample sees.
        opaque = scene.select(scene.opaque)
        found = raster.fragments(screen, opaque.faces, view.rows, view.columns, cull=~opaque.two_sided, cut=scene.cut)
        keys = raster.nearest(found, view.sample_count)
        seen = self._seen_triangles(scene, opaque, raster.visible(keys, screen, opaque.faces, view.columns))
        hidden = keys
        for number, (index, s) in enumerate(strands):
            strand_key, count = strand_keys(
                view.project(s.knots), view.rows, view.columns, wide=samples if s.casts_shadow else 1
            )
            # Later strands may cover earlier ones: their owner wins where the depths say so.
            points = visible_points(strand_key, hidden, count)
            hidden = torch.minimum(hidden, strand_key)
            seen = seen.covered_by(_seen_strands(s, points, index, len(scene.parts) + number, actors[index]), view)
        # 3. One point for each pixel and part.
        points = seen.per_pixel(view)
        # 4. Shadows of the key light and of near surfaces.
        depth = view.depth_image(hidden)
        shadows = _Shadows(scene, strands, points.channels[:, 3:6], light, view)
        # 5. Materials, light, subsurface scattering.
        colour, skin_light = self._shade(points, actors, light, view, shadows, depth)
        picture = torch.zeros(height * width, 4, device=self.device)
        picture.index_add_(
            0, points.pixel, torch.cat([colour, torch.ones_like(colour[:, :1])], 1) * points.share[:, None]
        )
        exposure = _exposure(points, skin_light, light)
        rgb, cover = picture[:, :3] * exposure, picture[:, 3:]
        image = rgb + background.to(self.device).reshape(-1, 3) * (1 - cover)
        # 6. Lashes, lenses: the nearest blended surfaces, back to front.
        image = self._blend(image, scene, screen, hidden, actors, light, view, shadows, depth, exposure)
        owner = _owners(points, height * width, len(actors))
        boxes, landmarks = _face_boxes(actors, view), _project_landmarks(actors, view)
        people = owner.reshape(height, width)
        return Rendered(
            picture=_encode(image).reshape(height, width, 3),
            people=people,
            cover=cover.reshape(height, width),
            boxes=boxes,
            landmarks=landmarks,
            visible=_visible_share(people, boxes),
        )

    def _seen_triangles(self, scene: _Scene, faces: _Faces, visible: raster.Visible) -> _Seen:
        corners = faces.faces[visible.face]
        channels = (scene.channels[corners] * visible.weights[..., None]).sum(1)
        return _Seen(visible.sample, faces.part[visible.face], channels, scene.part_person, scene.part_material)

    def _shade(
        self,
        points: _Points,
        actors: Sequence[Actor],
        light: Light,
        view: _View,
        shadows: _Shadows,
        depth: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """(P, 3) radiance, and the diffuse light and albedo of the skin of faces (for the exposure)."""
        lit = shadows.lit(points.channels[:, 3:6], points.channels[:, 6:9])
        near = _near_occlusion(depth, points, view)
        colour = torch.zeros(len(points.pixel), 3, device=self.device)
        measured = (torch.zeros(0, 3, device=self.device), torch.zeros(0, 3, device=self.device))
        for material in Material:
            chosen = (points.material == int(material)).nonzero()[:, 0]
            if not len(chosen):
                continue
            surface_points = self._surface_points(points, chosen, actors, view)
            surface = _complete(SHADERS[material](surface_points), surface_points)
            ambient = surface.occlusion * near[chosen]
            if surface.tangent is not None:
                diffuse = lighting.fibre_irradiance(surface_points, surface, light, lit[chosen], ambient)
                diffuse = diffuse * surface.occlusion[:, None].sqrt()
            else:
                partly = lit[chosen] * (0.55 + 0.45 * near[chosen]) * (0.25 + 0.75 * surface.occlusion)
                diffuse = lighting.irradiance(surface_points, surface, light, partly, ambient)
            if material == Material.SKIN:
                diffuse = _scatter(diffuse, surface, points.pixel[chosen], points.share[chosen], view)
                face = (surface_points.template[:, 2] > 0.55) & (surface_points.template[:, 1] > -0.6)
                measured = (diffuse[face], surface.albedo[face])
            mirrored = lighting.highlights(surface_points, surface, light, lit[chosen], ambient)
            colour[chosen] = surface.albedo * diffuse + mirrored
            if surface.alpha is not None:
                points.share[chosen] = points.share[chosen] * surface.alpha.clamp(0, 1)
        return colour, measured

    def _surface_points(self, points: _Points, chosen: Tensor, actors: Sequence[Actor], view: _View) -> SurfacePoints:
        channels = points.channels[chosen]
        towards = unit(view.eye - channels[:, 3:6])
        normal = unit(channels[:, 6:9])
        facing = (normal * towards).sum(1, keepdim=True)
        return SurfacePoints(
            template=channels[:, :3],
            position=channels[:, 3:6],
            normal=torch.where(facing < 0, unit(normal - 2 * facing * towards), normal),
            view=towards,
            uv=channels[:, 9:11],
            extra=channels[:, 11:],
            person=points.person[chosen],
            footprint=view.footprint(channels[:, 5]),
            people=[actor.person for actor in actors],
            noise=self._noise,
        )

    def _blend(
        self,
        image: Tensor,
        scene: _Scene,
        screen: Tensor,
        hidden: Tensor,
        actors: Sequence[Actor],
        light: Light,
        view: _View,
        shadows: _Shadows,
        depth: Tensor,
        exposure: Tensor,
    ) -> Tensor:
        blended = scene.select(~scene.opaque)
        if not len(blended.faces):
            return image
        found = raster.fragments(screen, blended.faces, view.rows, view.columns, cull=~blended.two_sided, cut=scene.cut)
        found = raster.in_front(found, hidden)
        layers, behind = [], None
        for _ in range(BLENDED_LAYERS):
            behind = raster.nearest(found, view.sample_count, behind=behind)
            layers.append(raster.visible(behind, screen, blended.faces, view.columns))
        for layer in reversed(layers):
            points = self._seen_triangles(scene, blended, layer).per_pixel(view)
            colour, _ = self._shade(points, actors, light, view, shadows, depth)
            weighted = torch.zeros(len(image), 4, device=self.device)
            weighted.index_add_(
                0,
                points.pixel,
                torch.cat([colour * exposure, torch.ones_like(colour[:, :1])], 1) * points.share[:, None],
            )
            image = image * (1 - weighted[:, 3:]) + weighted[:, :3]
        return image


def portrait_camera(
    actor: Actor, *, face: float = 0.30, shift: tuple[float, float] = (0.0, 0.0), distance: float = 12.0
) -> Camera:
    """Frames one head. face: height from the head joint to the crown in picture heights (a whole head is 1.5 times that);
    shift: of the middle of the picture against the middle of the face, in dm."""
    head, crown = actor.body.joint("head"), actor.body.joint("head-2")
    size = float((crown - head).norm())
    middle = head + (crown - head) * 0.12 + actor.body.head_rotation[:, 2] * 0.25 * size + actor.position
    x, y, z = (float(c) for c in middle)
    return Camera(target=(x + shift[0], y + shift[1], z), distance=distance, focal=face * distance / size)


@dataclass(frozen=True, eq=False)
class _Faces:
    faces: Tensor
    part: Tensor
    two_sided: Tensor


class _Scene:
    """All triangles of all people in scene space."""

    def __init__(self, actors: Sequence[Actor], device: torch.device) -> None:
        self.parts = [(i, part) for i, actor in enumerate(actors) for part in actor.parts]
        rows, faces, cuts, flags, casts = [], [], [], [], []
        offset = 0
        for number, (index, part) in enumerate(self.parts):
            count = len(part.vertices)
            normals = part.normals if part.normals is not None else vertex_normals(part.vertices, part.faces)
            extra = part.extra if part.extra is not None else part.vertices.new_zeros(count, 0)
            uv = part.uv if part.uv is not None else part.vertices.new_zeros(count, 2)
            position = part.vertices + actors[index].position
            extra = F.pad(extra, (0, EXTRA_CHANNELS - extra.shape[1]))
            rows.append(torch.cat([part.template, position, normals, uv, extra], 1))
            faces.append(part.faces + offset)
            cuts.append(part.cut if part.cut is not None else part.vertices.new_ones(count))
            values = (number, int(part.two_sided), int(not part.blended), int(part.casts_shadow))
            flags.append(torch.tensor(values, device=device).expand(len(part.faces), 4))
            offset += count
        self.channels = torch.cat(rows)
        self.positions = self.channels[:, 3:6]
        self.cut = torch.cat(cuts)
        self._faces = torch.cat(faces)
        self._part, two_sided, opaque, casts = torch.cat(flags).unbind(1)
        self._two_sided, self.opaque, self.casts = two_sided.bool(), opaque.bool(), casts.bool()
        self.part_person = torch.tensor([index for index, _ in self.parts], device=device)
        self.part_material = torch.tensor([int(part.material) for _, part in self.parts], device=device)

    def select(self, chosen: Tensor) -> _Faces:
        return _Faces(self._faces[chosen], self._part[chosen], self._two_sided[chosen])


class _View:
    """Projection of the scene into samples; rows and columns count samples, height and width pixels."""

    def __init__(self, camera: Camera, height: int, width: int, samples: int, device: torch.device) -> None:
        self.height, self.width, self.samples = height, width, samples
        self.rows, self.columns = height * samples, width * samples
        self._target = torch.tensor(camera.target, device=device)
        self._distance, self._focal = camera.distance, camera.focal * self.rows
        self.eye = self._target + torch.tensor([0.0, 0.0, camera.distance], device=device)

    @property
    def sample_count(self) -> int:
        return self.rows * self.columns

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
        return (self._distance - (z - self._target[2])) * (self.samples / self._focal)

    def samples_per_dm(self, position: Tensor) -> float:
        return float(self._focal / (self._distance - (position[2] - self._target[2])))

    def pixel_of(self, sample: Tensor) -> tuple[Tensor, Tensor]:
        """(S,) pixel and (S,) number of the sample within it."""
        row, column = torch.div(sample, self.columns, rounding_mode="floor"), sample % self.columns
        pixel = torch.div(row, self.samples, rounding_mode="floor") * self.width
        pixel = pixel + torch.div(column, self.samples, rounding_mode="floor")
        return pixel, (row % self.samples) * self.samples + column % self.samples

    def depth_image(self, keys: Tensor) -> Tensor:
        """(1, 1, H, W) mean depth of the samples of each pixel, the background a little behind the people."""
        depth = raster.depth_image(keys, self._distance + 1.5).reshape(1, 1, self.rows, self.columns)
        return F.avg_pool2d(depth, self.samples)


@dataclass(frozen=True, eq=False)
class _Points:
    """One point for each pixel and part in it. pixel, person, material: (P,); share: (P,) of the pixel."""

    pixel: Tensor
    person: Tensor
    material: Tensor
    share: Tensor
    channels: Tensor


@dataclass(frozen=True, eq=False)
class _Seen:
    """What the samples see. sample, part: (S,); channels: (S, C); person and material of each part number."""

    sample: Tensor
    part: Tensor
    channels: Tensor
    part_person: Tensor
    part_material: Tensor

    def covered_by(self, other: _Seen, view: _View) -> _Seen:
        covered = torch.zeros(view.sample_count, dtype=torch.bool, device=self.sample.device)
        covered[other.sample] = True
        left = (~covered[self.sample]).nonzero()[:, 0]
        return _Seen(
            torch.cat([self.sample[left], other.sample]),
            torch.cat([self.part[left], other.part]),
            torch.cat([self.channels[left], other.channels]),
            torch.cat([self.part_person, other.part_person]),
            torch.cat([self.part_material, other.part_material]),
        )

    def per_pixel(self, view: _View) -> _Points:
        """The mean of the samples that one pixel has of one part."""
        device, count = self.sample.device, view.samples**2
        pixel, within = view.pixel_of(self.sample)
        labels = torch.full((count, view.height * view.width), -1, dtype=torch.int64, device=device)
        labels[within, pixel] = self.part
        # The first sample of a pixel with the same part stands for all of them.
        first = torch.arange(count, device=device)[:, None].expand_as(labels).clone()
        for later in range(count - 1, 0, -1):
            for earlier in range(later - 1, -1, -1):
                first[later] = torch.where(labels[later] == labels[earlier], earlier, first[later])
        stands = (first == torch.arange(count, device=device)[:, None]) & (labels >= 0)
        number = (stands.flatten().cumsum(0) - 1).reshape(labels.shape)
        point = number[first[within, pixel], pixel]
        total = int(stands.sum())
        sums = torch.zeros(total, self.channels.shape[1] + 1, device=device)
        ones = torch.ones_like(self.channels[:, :1])
        sums.index_add_(0, point, torch.cat([self.channels, ones], 1))
        pixel_of_point = stands.flatten().nonzero()[:, 0] % (view.height * view.width)
        part = labels[stands]
        return _Points(
            pixel=pixel_of_point,
            person=self.part_person[part],
            material=self.part_material[part],
            share=sums[:, -1] / count,
            channels=sums[:, :-1] / sums[:, -1:],
        )


def _seen_strands(strands: Strands, points, person: int, part: int, actor: Actor) -> _Seen:
    position = points.at(strands.knots)
    device = position.device
    # Hair is lit like the ball it lies around, hanging hair like a column.
    head = actor.body.joint("head") + actor.position
    centre = head + 0.24 * (actor.body.joint("head-2") - actor.body.joint("head"))
    outward = position - centre
    hanging = smoothstep(0.0, -0.9, outward[:, 1])
    outward = unit(torch.stack([outward[:, 0], outward[:, 1] * (1 - hanging), outward[:, 2]], 1))
    of = points.strand
    own = torch.stack([strands.tone[of], strands.layer[of], points.along, strands.pigment[of], strands.kind[of]], 1)
    extra = torch.cat([own, points.direction(strands.knots)], 1)
    blank = torch.zeros(len(of), 2, device=device)
    channels = torch.cat([points.at(strands.template), position, outward, blank, extra], 1)
    number = torch.full_like(of, part)
    return _Seen(
        points.sample,
        number,
        channels,
        torch.tensor([person], device=device),
        torch.tensor([int(strands.material)], device=device),
    )


class _Shadows:
    """Depth of the scene as the key light sees it, around what the camera sees."""

    def __init__(
        self, scene: _Scene, strands: list[tuple[int, Strands]], seen: Tensor, light: Light, view: _View
    ) -> None:
        device = seen.device
        self._towards = unit(torch.tensor(light.key.direction, device=device))
        across = unit(torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], device=device), self._towards))
        self._axes = torch.stack([across, torch.linalg.cross(self._towards, across), self._towards], 1)
        flat = seen @ self._axes if len(seen) else torch.zeros(1, 3, device=device)
        low, high = flat.amin(0), flat.amax(0)
        self._size = size = int(min(max(0.9 * max(view.height, view.width), 128), 448))
        self._low, self._far = low[:2], float(high[2]) + 30
        self._scale = (size - 1) / float((high - low)[:2].amax().clamp(min=1e-3))
        self._radius = (0.6 + 1.2 * light.key.softness) * self._scale * 0.022
        casters = scene.select(scene.casts & scene.opaque)
        keys = raster.nearest(
            raster.fragments(self._project(scene.positions), casters.faces, size, size, cut=scene.cut), size * size
        )
        for _, s in strands:
            if s.casts_shadow:
                keys = torch.minimum(keys, strand_keys(self._project(s.knots), size, size, wide=2)[0])
        self._depth = raster.depth_image(keys, 1e4)

    def _project(self, positions: Tensor) -> Tensor:
        x, y, z = (positions @ self._axes).unbind(-1)
        return torch.stack([(x - self._low[0]) * self._scale, (y - self._low[1]) * self._scale, self._far - z], -1)

    def lit(self, positions: Tensor, normals: Tensor) -> Tensor:
        """(P,) 0..1 share of the key light that reaches the points."""
        x, y, depth = self._project(positions).unbind(1)
        bias = 0.035 + 0.03 * (1 - (unit(normals) @ self._towards).clamp(0, 1)) + 0.7 / self._scale
        reach = max(self._radius, 1.0)
        total = torch.zeros_like(x)
        for dx, dy in _SHADOW_TAPS:
            column = (x + dx * reach).round().long().clamp(0, self._size - 1)
            row = (y + dy * reach).round().long().clamp(0, self._size - 1)
            total += smoothstep(2.0, 1.0, (depth - self._depth[row * self._size + column]) / bias)
        return total / len(_SHADOW_TAPS)


def _near_occlusion(depth: Tensor, points: _Points, view: _View) -> Tensor:
    """(P,) 0..1 how open the picture's surroundings of a point are: what lies nearer than it all around takes light."""
    taken = torch.zeros_like(depth)
    per_dm = view.rows / view.samples / (view.footprint(torch.zeros(1)).item() * view.height)
    for radius, strength in ((0.10, 2.0), (0.32, 1.0)):
        reach = max(1, round(radius * per_dm))
        coarse = max(1, reach // 4)
        small = F.avg_pool2d(depth, coarse, ceil_mode=True, count_include_pad=False) if coarse > 1 else depth
        reach = max(1, round(reach / coarse))
        mean = F.avg_pool2d(small, 2 * reach + 1, 1, reach, count_include_pad=False)
        mean = F.interpolate(mean, depth.shape[2:], mode="bilinear", align_corners=False) if coarse > 1 else mean
        taken += strength * (depth - mean).clamp(0, 0.22)
    return (1 - 1.5 * taken.flatten()[points.pixel]).clamp(0.4, 1)


def _complete(surface: Surface, points: SurfacePoints) -> Surface:
    """The surface with defaults in place of None."""
    fill = {
        "specular": points.constant(0.1),
        "gloss": points.constant(20.0),
        "subsurface": points.constant(0.0),
        "occlusion": points.constant(1.0),
        "normal": points.normal,
    }
    missing = {name: value for name, value in fill.items() if getattr(surface, name) is None}
    return replace(surface, **missing)


def _scatter(diffuse: Tensor, surface: Surface, pixel: Tensor, share: Tensor, view: _View) -> Tensor:
    """Light that entered the skin nearby leaves it here: a blur inside the skin, red the furthest."""
    radius = round(0.022 / float(view.footprint(torch.zeros(1, device=pixel.device))))
    if radius < 1:
        return diffuse
    image = torch.zeros(view.height * view.width, 4, device=pixel.device)
    weight = share * surface.subsurface
    image.index_add_(0, pixel, torch.cat([diffuse * weight[:, None], weight[:, None]], 1))
    image = image.T.reshape(1, 4, view.height, view.width)
    for _ in range(2):
        image = F.avg_pool2d(image, 2 * radius + 1, 1, radius)
    blurred = (image[0, :3] / image[0, 3:].clamp(min=1e-4)).reshape(3, -1).T[pixel]
    part = torch.tensor([0.75, 0.40, 0.28], device=pixel.device) * surface.subsurface[:, None]
    return diffuse + (blurred - diffuse) * part


def _exposure(points: _Points, measured: tuple[Tensor, Tensor], light: Light) -> Tensor:
    """() factor that puts the faces at a good brightness, as a photographer would: dark skin gets a little more light."""
    diffuse, albedo = measured
    if not len(diffuse):
        return torch.ones((), device=points.pixel.device) * light.brightness
    luminance = torch.tensor(lighting.LUMINANCE, device=diffuse.device)
    received = (diffuse @ luminance).clamp(min=1e-3).mean()
    tone = (albedo @ luminance).clamp(min=1e-3).mean()
    return light.brightness * _FACE_IRRADIANCE / received * (tone / _AVERAGE_ALBEDO) ** -0.32


def _encode(image: Tensor) -> Tensor:
    """Linear RGB -> uint8 sRGB, with a soft shoulder above middle tones."""
    start = 0.55
    over = ((image - start) / (1 - start)).clamp(min=0)
    image = torch.where(image > start, start + (1 - start) * (1 - torch.exp(-over)), image.clamp(min=0))
    encoded = torch.where(image < 0.0031308, image * 12.92, 1.055 * image.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
    return (encoded.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _owners(points: _Points, pixels: int, people: int) -> Tensor:
    """(pixels,) who covers most of each pixel, -1 where the background does."""
    shares = torch.zeros(pixels * (people + 1), device=points.pixel.device)
    shares.index_add_(0, points.pixel * (people + 1) + points.person, points.share)
    shares = shares.reshape(pixels, people + 1)
    shares[:, -1] = 1 - shares.sum(1)
    owner = shares.argmax(1)
    return torch.where(owner == people, torch.full_like(owner, -1), owner)


def _face_boxes(actors: Sequence[Actor], view: _View) -> Tensor:
    boxes = []
    for actor in actors:
        face = view.to_pixels(actor.body.vertices[actor.body.mesh.face_outline] + actor.position)
        boxes.append(torch.cat([face.amin(0), face.amax(0)]))
    return torch.stack(boxes)


def _project_landmarks(actors: Sequence[Actor], view: _View) -> Tensor:
    return torch.stack([view.to_pixels(actor.body.landmarks + actor.position) for actor in actors])


def _visible_share(people: Tensor, boxes: Tensor) -> Tensor:
    height, width = people.shape
    shares = []
    for index, box in enumerate(boxes.tolist()):
        x0, y0, x1, y1 = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
        inside = people[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        area = max((x1 - x0) * (y1 - y0), 1)
        shares.append(float((inside == index).sum()) / area)
    return torch.tensor(shares, device=people.device)
