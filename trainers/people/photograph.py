"""Taking the picture of a scene: people, light and place together, and the record of what is in it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from trainers.people.places import light_of, paint
from trainers.people.record import Face, SceneRecord, describe
from trainers.people.renderer import Renderer
from trainers.people.scene import Scene


@dataclass(frozen=True, eq=False)
class Photograph:
    """picture: (H, W, 3) uint8 sRGB on the renderer's device; people: (H, W) int64, who a pixel shows (index into
    record.people), -1 background."""

    picture: Tensor
    people: Tensor
    record: SceneRecord


def photograph(renderer: Renderer, scene: Scene, height: int, *, samples: int = 2) -> Photograph:
    """Render `scene` at `height` pixels (its width follows from its aspect) with `samples` per pixel side."""
    rows, columns = scene.size(height)
    background = paint(scene.setting, rows, columns, blur=scene.blur, device=renderer.device)
    actors = renderer.build(scene.people)
    rendered = renderer.render(actors, scene.camera, light_of(scene.setting), background, samples=samples)
    faces = [
        Face(
            box=tuple(round(v, 1) for v in box),
            landmarks=tuple((round(x, 1), round(y, 1)) for x, y in landmarks),
            visible=round(visible, 3),
        )
        for box, landmarks, visible in zip(
            rendered.boxes.tolist(), rendered.landmarks.tolist(), rendered.visible.tolist(), strict=True
        )
    ]
    return Photograph(rendered.picture, rendered.people, describe(scene, faces, height))
