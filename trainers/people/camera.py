"""The camera that looks at rendered people."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Camera:
    """Looks straight ahead (towards -z) at the point `target` (dm) in the middle of the picture from `distance` dm.
    focal: in picture heights, so that one dm at the target covers focal / distance of the height."""

    target: tuple[float, float, float]
    distance: float = 12.0
    focal: float = 3.0

    @classmethod
    def framing(
        cls,
        left: float,
        right: float,
        bottom: float,
        top: float,
        *,
        aspect: float,
        distance: float,
        depth: float = 0.0,
    ) -> Camera:
        """The camera that shows a rectangle of the plane z = `depth` as large as a picture of `aspect` (width / height)
        allows, from `distance` dm in front of that plane."""
        tall = max(top - bottom, (right - left) / aspect)
        target = (float(left + right) / 2, float(top + bottom) / 2, depth)
        return cls(target=target, distance=distance, focal=float(distance / tall))
