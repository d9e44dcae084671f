"""Eyeballs, lashes, teeth and tongue: their parts of the mesh and how they look."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainers.people.surface import Material, Part, Surface, SurfacePoints, mix, smoothstep, unit

if TYPE_CHECKING:
    from trainers.people.mesh import Body, PeopleMesh

_IRIS_ANGLE = 0.46  # radians around the gaze; a real iris is 11.7 mm on a ball of 24 mm
_SCLERA = (0.66, 0.62, 0.59)
_FURTHEST_GAZE = 0.5
# Expression units that part the lips.
_PARTING = {"mouth-open", "mouth-parling", "mouth-upward-retraction"}


@dataclass(frozen=True, eq=False)
class Lashes:
    """The lash cards of the mesh. faces: (m, 3) of vertices: (k,) body indices; along: (k,) 0 at the lid .. 1 at the
    tips; upper: (k,) 1 on upper lids, 0 on lower ones."""

    vertices: Tensor
    faces: Tensor
    along: Tensor
    upper: Tensor

    @classmethod
    def of(cls, mesh: PeopleMesh) -> Lashes:
        along, upper = torch.zeros(mesh.vertex_count), torch.zeros(mesh.vertex_count)
        body = mesh.template[mesh.vertices_of("body")]
        names = [f"helper-{side}-eyelashes-{row}" for side in "lr" for row in (1, 2)]
        heights = {name: float(mesh.template[mesh.vertices_of(name), 1].mean()) for name in names}
        for name in names:
            own = mesh.vertices_of(name)
            gap = torch.cdist(mesh.template[own], body).amin(1)
            along[own.cpu()] = (gap / gap.amax()).cpu()
            upper[own.cpu()] = float(heights[name] > sum(heights.values()) / len(heights))
        vertices, faces = mesh.faces_of(*names).unique(return_inverse=True)
        device = mesh.device
        return cls(vertices, faces, along.to(device)[vertices], upper.to(device)[vertices])


def parts(body: Body) -> list[Part]:
    """Eyeballs, lashes, teeth and tongue of a person."""
    mesh = body.mesh
    found = [_eyeball(body, side) for side in "lr"]
    lashes = mesh.lashes
    found.append(
        Part(
            material=Material.LASHES,
            vertices=body.vertices[lashes.vertices],
            template=mesh.template[lashes.vertices],
            faces=lashes.faces,
            extra=torch.stack([lashes.along, lashes.upper], 1),
            two_sided=True,
            blended=True,
            casts_shadow=False,
        )
    )
    if not _PARTING.intersection(body.person.expression_units):
        return found  # teeth a hair in front of closed lips would show as a white line
    for material, names in (
        (Material.TEETH, ("helper-upper-teeth", "helper-lower-teeth")),
        (Material.TONGUE, ("helper-tongue",)),
    ):
        index, faces = mesh.compact(*names)
        found.append(
            Part(
                material=material,
                vertices=body.vertices[index],
                template=mesh.template[index],
                faces=faces,
                casts_shadow=False,
            )
        )
    return found


def _eyeball(body: Body, side: str) -> Part:
    """extra: direction from the centre of the ball in the frame of the gaze (z is where the eye looks)."""
    mesh = body.mesh
    index, faces = mesh.compact(f"helper-{side}-eye")
    centre, _ = body.eyes[side]
    outward = unit(body.vertices[index] - centre)
    gaze = _gaze(body)
    right = unit(torch.linalg.cross(body.head_rotation[:, 1], gaze))
    frame = torch.stack([right, torch.linalg.cross(gaze, right), gaze], 1)
    return Part(
        material=Material.EYE,
        vertices=body.vertices[index],
        template=mesh.template[index],
        faces=faces,
        normals=outward,
        extra=outward @ frame,
        casts_shadow=False,
    )


def _gaze(body: Body) -> Tensor:
    """(3,) unit direction in which the eyes look: into the camera as far as eyes can turn, unless told otherwise."""
    gaze = body.person.appearance.gaze
    if gaze is None:
        towards_camera = body.head_rotation.T @ torch.tensor([0.0, 0.0, 1.0], device=body.mesh.device)
        right = float(torch.atan2(towards_camera[0], towards_camera[2]))
        up = float(torch.asin(towards_camera[1].clamp(-1, 1)))
    else:
        right, up = gaze
    reach = math.hypot(right, up)
    scale = min(1.0, _FURTHEST_GAZE / max(reach, 1e-6))
    local = torch.tensor([math.tan(right * scale), math.tan(up * scale), 1.0], device=body.mesh.device)
    return unit(body.head_rotation @ local)


def shade_eye(points: SurfacePoints) -> Surface:
    """Sclera, iris with fibres and a dark rim, pupil; a wet cornea that mirrors the lights."""
    direction = unit(points.extra[:, :3])
    angle = torch.acos(direction[:, 2].clamp(-1, 1))
    ages = [p.appearance.age for p in points.people]
    iris_angle = points.gather([_IRIS_ANGLE * (1.08 if a < 6 else 1.0) for a in ages])
    radius = angle / iris_angle
    around = unit(direction[:, :2])
    fibres = points.noise(torch.cat([around * 2, radius[:, None] * 0.25], 1), 9.0)[:, 0]
    colour = points.gather([p.identity.iris_colour for p in points.people])
    pattern = 0.72 + 0.22 * fibres + 0.55 * smoothstep(0.35, 0.65, radius) * smoothstep(1.0, 0.7, radius)
    # Light comes in from above and is gathered at the lower side of the iris.
    gathered = 1 + 0.35 * smoothstep(0.2, -0.8, around[:, 1]) * smoothstep(0.4, 0.8, radius)
    blur = (points.footprint / 0.117).clamp(0.04, 0.5)  # of a pixel against the eyeball
    iris = colour * (pattern * gathered * (1 - 0.72 * smoothstep(0.74, 1.0, radius)))[:, None]
    iris = iris * smoothstep(0.36 - 0.5 * blur, 0.40 + 0.5 * blur, radius)[:, None]
    veins = points.constant(0.06) * smoothstep(1.3, 2.4, radius)
    old = points.gather([min(max((a - 45) / 35, 0), 1) for a in ages])
    sclera = torch.tensor(_SCLERA, device=points.device) * (1 - 0.06 * old)[:, None]
    sclera = sclera * (1 - veins[:, None] * torch.tensor([0.3, 1.5, 1.5], device=points.device))
    albedo = mix(iris.clamp(0, 1), sclera, smoothstep(0.94 - 0.6 * blur, 1.04 + 0.6 * blur, radius))
    # The upper lid and its lashes shade the top of the eye.
    height = points.normal[:, 1]
    shade = 0.40 + 0.60 * smoothstep(0.42, -0.05, height)
    corner = 1 - 0.30 * smoothstep(0.45, 0.85, direction[:, 0].abs())
    # The cornea bulges: its normals spread further apart than those of the ball.
    bulge = smoothstep(1.15, 0.6, radius) * 0.6
    normal = unit(points.normal + bulge[:, None] * (points.normal - points.view * 0.6))
    return Surface(
        albedo=albedo,
        specular=points.constant(0.3),
        gloss=points.constant(120.0),
        occlusion=shade * corner,
        normal=normal,
        reflection=0.030 + 0.16 * smoothstep(1.15, 0.9, radius) * shade,
    )


def shade_lashes(points: SurfacePoints) -> Surface:
    """A soft dark line at the lid that fades out towards the tips."""
    along, upper = points.extra[:, 0], points.extra[:, 1]
    female = points.gather([float(p.identity.female and p.appearance.age > 13) for p in points.people])
    density = (0.80 + 0.15 * female) * upper + (0.28 + 0.10 * female) * (1 - upper)
    hair = points.gather([p.identity.pigment_at(p.appearance.age) for p in points.people])
    return Surface(
        albedo=0.12 * hair + 0.008,
        specular=points.constant(0.0),
        alpha=density * (1 - along).clamp(0, 1) ** (1.7 - 0.6 * female * upper),
    )


def shade_teeth(points: SurfacePoints) -> Surface:
    """Ivory, darker into the mouth and between the teeth."""
    age = points.gather([p.appearance.age for p in points.people])
    old = smoothstep(25.0, 75.0, age)[:, None]
    ivory = mix(
        torch.tensor([[0.64, 0.60, 0.53]], device=points.device).expand(len(points), 3),
        torch.tensor([0.55, 0.48, 0.36], device=points.device),
        old[:, 0],
    )
    x, z = points.template[:, 0], points.template[:, 2]
    gaps = 1 - 0.22 * torch.cos(x * (2 * math.pi / 0.088)).clamp(min=0) ** 6
    return Surface(
        albedo=ivory * gaps[:, None],
        specular=points.constant(0.5),
        gloss=points.constant(60.0),
        occlusion=0.25 + 0.65 * smoothstep(0.55, 0.92, z),
        subsurface=points.constant(0.3),
    )


def shade_tongue(points: SurfacePoints) -> Surface:
    return Surface(
        albedo=torch.tensor([[0.30, 0.09, 0.08]], device=points.device).expand(len(points), 3),
        specular=points.constant(0.3),
        gloss=points.constant(30.0),
        occlusion=0.15 + 0.5 * smoothstep(0.5, 0.9, points.template[:, 2]),
    )
