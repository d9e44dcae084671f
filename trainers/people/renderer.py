"""Pictures of rendered people: geometry, visibility, materials and light of a whole scene.

How modules plug in:
- A *geometry* module has a function `parts(body) -> list[Part]` (skin.part, eyes.parts, cloth.clothes,
  accessories.glasses, accessories.hat) or, for hair, `strands(body, samples_per_dm) -> list[Strands]`. `mesh.Body`
  carries the posed mesh and helps to fit other meshes to it.
- A *material* module has a function `shade(points: SurfacePoints) -> Surface`, listed in SHADERS. It is called once for
  all seen points of its material, of all people.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainers.people import accessories, cloth, eyes, hair, skin
from trainers.people.camera import Camera
from trainers.people.identity import Person
from trainers.people.lighting import LUMINANCE, Light, Lighting
from trainers.people.mesh import PeopleMesh
from trainers.people.shadows import Nearness, Shadows, box_blur
from trainers.people.surface import Material, Noise, Surface, SurfacePoints, unit
from trainers.people.visibility import Actor, Points, Scene, View, look, look_through

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
_FACE_IRRADIANCE = 1.0  # what a correctly exposed face of average albedo receives
_AVERAGE_ALBEDO = 0.30
_SCATTER_RADIUS = 0.028  # dm


@dataclass(frozen=True, eq=False)
class Rendered:
    """picture: (H, W, 3) uint8 sRGB. people: (H, W) int64 index of the person that a pixel shows, -1 background.
    boxes: (N, 4) faces as detectors box them, x0, y0, x1, y1 in pixels, partly outside the picture perhaps.
    landmarks: (N, 5, 2) eye, eye, nose tip, mouth corner, mouth corner; the person's right first.
    visible: (N,) share of the face box inside the picture that the person itself covers, 0..1."""

    picture: Tensor
    people: Tensor
    boxes: Tensor
    landmarks: Tensor
    visible: Tensor


class Renderer:
    """Renders people with one mesh on the mesh's device. Stateless between pictures: equal input, equal bytes."""

    def __init__(self, mesh: PeopleMesh | None = None) -> None:
        self.mesh = mesh or PeopleMesh()
        self.device = self.mesh.device
        self._noise = Noise(self.device)

    @torch.no_grad()
    def build(self, people: Sequence[Person]) -> list[Actor]:
        """Bodies and their meshes, which do not depend on the camera."""
        return [self._actor(person) for person in people]

    def _actor(self, person: Person) -> Actor:
        body = self.mesh.body(person)
        parts = [skin.part(body), *eyes.parts(body)]
        parts += [*cloth.clothes(body), *accessories.glasses(body), *accessories.hat(body)]
        return Actor(person, body, tuple(parts))

    @torch.no_grad()
    def render(
        self, actors: Sequence[Actor], camera: Camera, light: Light, background: Tensor, *, samples: int = 2
    ) -> Rendered:
        """One picture. background: (H, W, 3) linear RGB; its size is the picture's. samples: per pixel side."""
        height, width, _ = background.shape
        view = View(camera, height, width, samples, self.device)
        # 1. Everything as one mesh, and strands of hair as fine as the picture can show.
        strands = [
            (index, s)
            for index, actor in enumerate(actors)
            for s in hair.strands(actor.body, view.samples_per_dm(actor.position))
        ]
        scene = Scene(actors, strands, self.device)
        # 2. What is seen, and how much light reaches it.
        seen = look(scene, view)
        lighting = Lighting(light, self.device)
        shadows = Shadows(scene, seen.points.position, lighting.key, light.key.softness, view)
        nearness = Nearness(view.depth_image(seen.keys), view)
        shade = _Shading(actors, lighting, view, shadows, nearness, self._noise)
        # 3. Materials under light, exposed for the faces, over the background.
        colour, _ = shade(seen.points)
        exposure = light.brightness * shade.exposure()
        layer = _gather(seen.points.pixel, colour * exposure, seen.points.share, view.pixels)
        image = layer[:, :3] + background.to(self.device).reshape(-1, 3) * (1 - layer[:, 3:])
        # 4. Lashes and lenses, back to front.
        layers = look_through(scene, view, seen.keys, BLENDED_LAYERS)
        colour, alpha = shade(Points.joined(layers))
        sizes = [len(points) for points in layers]
        for points, c, a in reversed(list(zip(layers, colour.split(sizes), alpha.split(sizes), strict=True))):
            layer = _gather(points.pixel, c * exposure, points.share * a, view.pixels)
            image = layer[:, :3] + image * (1 - layer[:, 3:])
        people = _owners(seen.points, view, len(actors)).reshape(height, width)
        boxes = _face_boxes(actors, view)
        return Rendered(
            picture=_encode(image).reshape(height, width, 3),
            people=people,
            boxes=boxes,
            landmarks=torch.stack([view.to_pixels(a.body.landmarks + a.position) for a in actors]),
            visible=_visible_share(people, boxes),
        )


def portrait_camera(
    actor: Actor, *, face: float = 0.30, shift: tuple[float, float] = (0.0, 0.0), distance: float = 12.0
) -> Camera:
    """Frames one head. face: height from the head joint to the crown in picture heights (a whole head is 1.5 times
    that); shift: of the middle of the picture against the middle of the face, in dm."""
    head, crown = actor.body.joint("head"), actor.body.joint("head-2")
    size = float((crown - head).norm())
    middle = head + (crown - head) * 0.12 + actor.body.head_rotation[:, 2] * 0.25 * size + actor.position
    x, y, z = (float(c) for c in middle)
    return Camera(target=(x + shift[0], y + shift[1], z), distance=distance, focal=face * distance / size)


class _Shading:
    """Materials and light of one picture."""

    def __init__(
        self,
        actors: Sequence[Actor],
        lighting: Lighting,
        view: View,
        shadows: Shadows,
        nearness: Nearness,
        noise: Noise,
    ) -> None:
        self._people = [actor.person for actor in actors]
        self._lighting, self._view, self._noise = lighting, view, noise
        self._shadows, self._nearness = shadows, nearness
        self._faces: list[tuple[Tensor, Tensor]] = []

    def __call__(self, points: Points) -> tuple[Tensor, Tensor]:
        """(P, 3) light that leaves the points towards the camera, and their (P,) alpha."""
        lit, near = self._shadows.lit(points), self._nearness.at(points)
        colour, alpha = torch.zeros_like(points.position), torch.ones_like(points.share)
        present = points.material.unique().tolist()
        for material in present:
            chosen = (points.material == material).nonzero()[:, 0]
            own = points.at(chosen)
            surface_points = self._surface_points(own)
            surface = _complete(SHADERS[Material(material)](surface_points), surface_points)
            colour[chosen] = self._radiance(surface_points, surface, own, lit[chosen], near[chosen])
            if surface.alpha is not None:
                alpha[chosen] = surface.alpha.clamp(0, 1)
        return colour, alpha

    def _radiance(self, points: SurfacePoints, surface: Surface, own: Points, lit: Tensor, near: Tensor) -> Tensor:
        ambient = surface.occlusion * near
        partly = lit * (0.55 + 0.45 * near) * (0.25 + 0.75 * surface.occlusion)
        diffuse = self._lighting.irradiance(surface, partly, ambient)
        if int(own.material[0]) == Material.SKIN:
            diffuse = _scatter(diffuse, surface, own, self._view)
            face = ((points.template[:, 2] > 0.55) & (points.template[:, 1] > -0.6)).nonzero()[:, 0]
            self._faces.append((diffuse[face], surface.albedo[face]))
        return surface.albedo * diffuse + self._lighting.highlights(points, surface, lit, ambient)

    def _surface_points(self, points: Points) -> SurfacePoints:
        towards, normal = unit(self._view.eye - points.position), unit(points.normal)
        facing = (normal * towards).sum(1, keepdim=True)
        return SurfacePoints(
            template=points.template,
            position=points.position,
            normal=torch.where(facing < 0, unit(normal - 2 * facing * towards), normal),
            view=towards,
            extra=points.extra,
            person=points.person,
            footprint=self._view.footprint(points.position[:, 2]),
            people=self._people,
            noise=self._noise,
        )

    def exposure(self) -> Tensor:
        """() factor that puts the faces shaded so far at a good brightness, as a photographer would: dark skin gets a
        little more light."""
        diffuse, albedo = (torch.cat(values) for values in zip(*self._faces, strict=True)) if self._faces else ((), ())
        if not len(diffuse):
            return torch.ones((), device=self._view.eye.device)
        luminance = torch.tensor(LUMINANCE, device=diffuse.device)
        received = (diffuse @ luminance).mean().clamp(min=1e-3)
        tone = (albedo @ luminance).mean().clamp(min=1e-3)
        return _FACE_IRRADIANCE / received * (tone / _AVERAGE_ALBEDO) ** -0.32


def _complete(surface: Surface, points: SurfacePoints) -> Surface:
    """The surface with defaults in place of None."""
    defaults = {"specular": 0.1, "gloss": 20.0, "subsurface": 0.0, "occlusion": 1.0}
    missing = {name: points.constant(v) for name, v in defaults.items() if getattr(surface, name) is None}
    return replace(surface, normal=points.normal if surface.normal is None else surface.normal, **missing)


def _scatter(diffuse: Tensor, surface: Surface, points: Points, view: View) -> Tensor:
    """Light that entered the skin nearby leaves it here: a blur inside the skin, red the furthest."""
    radius = round(_SCATTER_RADIUS * view.pixels_per_dm)
    if radius < 1:
        return diffuse
    image = _gather(points.pixel, diffuse, points.share * surface.subsurface, view.pixels)
    image = image.T.reshape(1, 4, view.height, view.width)
    image = box_blur(image, radius)[0].reshape(4, -1)[:, points.pixel]
    blurred = (image[:3] / image[3:].clamp(min=1e-4)).T
    share = torch.tensor([0.75, 0.40, 0.28], device=diffuse.device) * surface.subsurface[:, None]
    return diffuse + (blurred - diffuse) * share


def _gather(pixel: Tensor, colour: Tensor, weight: Tensor, pixels: int) -> Tensor:
    """(pixels, 4) weighted colours of the points of each pixel, and the sum of their weights."""
    image = torch.zeros(pixels, 4, device=colour.device)
    return image.index_add_(0, pixel, torch.cat([colour * weight[:, None], weight[:, None]], 1))


def _encode(image: Tensor) -> Tensor:
    """Linear RGB -> uint8 sRGB, with a soft shoulder above middle tones."""
    start = 0.55
    over = ((image - start) / (1 - start)).clamp(min=0)
    image = torch.where(image > start, start + (1 - start) * (1 - torch.exp(-over)), image.clamp(min=0))
    encoded = torch.where(image < 0.0031308, image * 12.92, 1.055 * image.clamp(min=1e-6) ** (1 / 2.4) - 0.055)
    return (encoded.clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def _owners(points: Points, view: View, people: int) -> Tensor:
    """(pixels,) who covers most of each pixel, -1 where the background does."""
    shares = torch.zeros(view.pixels * people, device=points.pixel.device)
    shares.index_add_(0, points.pixel * people + points.person, points.share)
    most, owner = shares.reshape(view.pixels, people).max(1)
    covered = shares.reshape(view.pixels, people).sum(1)
    return torch.where(most >= 1 - covered, owner, torch.full_like(owner, -1))


def _face_boxes(actors: Sequence[Actor], view: View) -> Tensor:
    boxes = []
    for actor in actors:
        face = view.to_pixels(actor.body.vertices[actor.body.mesh.face_outline] + actor.position)
        boxes.append(torch.cat([face.amin(0), face.amax(0)]))
    return torch.stack(boxes)


def _visible_share(people: Tensor, boxes: Tensor) -> Tensor:
    height, width = people.shape
    shares = []
    for index, box in enumerate(boxes.tolist()):
        x0, y0, x1, y1 = (math.floor(box[0]), math.floor(box[1]), math.ceil(box[2]), math.ceil(box[3]))
        inside = people[max(y0, 0) : min(y1, height), max(x0, 0) : min(x1, width)]
        shares.append(float((inside == index).sum()) / max((x1 - x0) * (y1 - y0), 1))
    return torch.tensor(shares, device=people.device)
