"""Simple, believable places behind rendered people, painted out of focus, with the light that goes with them.

`choose_setting(seed)` decides on a place and a light and says them in words; `paint(setting, height, width)`
paints it. Both depend on the seed alone. A picture of 256 pixels takes a few milliseconds of one CPU core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.people import indoors, outdoors
from trainers.people.canvas import Canvas
from trainers.people.daylight import LIGHTS, Daylight
from trainers.people.lighting import AreaLight, Light


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The place and light of one picture. `place` and `light` are keys, the `_words` what a caption says.

    `azimuth` and `elevation` are where the light comes from, in degrees: azimuth 0 is straight from the camera,
    positive from the right of the picture. `backdrop` is the paper colour in a studio, else None.
    """

    seed: int
    place: str
    place_words: str
    light: str
    light_words: str
    azimuth: float
    elevation: float
    backdrop: str | None = None

    def to_json(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Place:
    """A kind of place: `words` are what a caption says, `asked` is how somebody in a hurry asks for it, `lights` are
    those it can be seen in."""

    words: tuple[str, ...]
    asked: tuple[str, ...]
    lights: tuple[str, ...]
    painter: Callable[[Canvas, np.random.Generator, Setting, Daylight], None]


def choose_setting(seed: int, *, places: Iterable[str] | None = None, lights: Iterable[str] | None = None) -> Setting:
    """Place, light and words of a picture; `places` and `lights` narrow the choice by key.

    Raises ValueError when a key is unknown or no place has any of the lights.
    """
    rng = np.random.default_rng([seed, 0x9A7])
    for keys, known in ((places, PLACES), (lights, LIGHTS)):
        for key in keys or ():
            if key not in known:
                raise ValueError(f"Unknown place or light {key!r}. Known: {', '.join(known)}.")
    allowed = set(lights or LIGHTS)
    choices = [p for p in (places or PLACES) if allowed & set(PLACES[p].lights)]
    if not choices:
        raise ValueError(f"None of the places {list(places or PLACES)} can be seen in {sorted(allowed)}.")
    place = choices[rng.integers(len(choices))]
    light = rng.choice([name for name in PLACES[place].lights if name in allowed])
    kind = LIGHTS[light]
    side = rng.choice([-1, 1])
    azimuth = side * (rng.uniform(55, 80) if light == "side" else rng.uniform(12, 62))
    backdrop = str(rng.choice(list(indoors.BACKDROPS))) if place == "studio" else None
    return Setting(
        seed=seed,
        place=place,
        place_words=place_words(str(rng.choice(PLACES[place].words)), backdrop),
        light=str(light),
        light_words=str(rng.choice(kind.words)),
        azimuth=float(round(azimuth, 1)),
        elevation=float(round(rng.uniform(*kind.elevation), 1)),
        backdrop=backdrop,
    )


def place_words(words: str, backdrop: str | None) -> str:
    """The words of a place with the colour of the studio paper filled in."""
    return words.format(backdrop=backdrop, article="an" if str(backdrop)[0] in "aeiou" else "a")


def paint(
    setting: Setting, height: int, width: int, *, blur: float = 0.03, device: str | torch.device = "cpu"
) -> Tensor:
    """The place out of focus, (height, width, 3) linear RGB >= 0, float32.

    `blur` is the depth of field at the far end in frame heights: .05 suits a portrait, .025 a group. The place is
    painted no finer than its blur can show and scaled up.
    """
    fine = int(np.clip(round(4.5 / blur), 64, 192))
    rows = min(height, fine)
    canvas = Canvas(rows, max(8, round(rows * width / height)), blur=blur, device=device)
    rng = np.random.default_rng([setting.seed, 0x9A8])
    PLACES[setting.place].painter(canvas, rng, setting, LIGHTS[setting.light])
    canvas.defocus(0.8)
    picture = canvas.image.clamp(min=0)[None]
    if picture.shape[2:] != (height, width):
        picture = F.interpolate(picture, (height, width), mode="bicubic", align_corners=False).clamp(min=0)
    return picture[0].permute(1, 2, 0).contiguous()


def light_of(setting: Setting) -> Light:
    """The light on the people in a place: the sun, window or lamp as the key, the sky above and what the ground
    sends back."""
    kind = LIGHTS[setting.light]
    ground = kind.ambient_colour * GROUNDS.get(setting.place, GREY_FLOOR)
    colours = (kind.key * kind.key_colour, 0.22 * kind.ambient_colour, 0.55 * kind.ambient_colour, ground)
    key, fill, sky, bounce = (tuple(float(c) for c in rgb) for rgb in colours)
    return Light(
        key=AreaLight.at(setting.azimuth, setting.elevation, colour=key, softness=kind.softness),
        fill=AreaLight.at(-0.8 * setting.azimuth, 5.0, colour=fill, softness=1.0),
        sky=sky,
        ground=bounce,
        brightness=kind.brightness,
    )


GREY_FLOOR = np.full(3, 0.22)
GROUNDS = {
    "snow": np.array([0.50, 0.52, 0.56]),
    "beach": np.array([0.36, 0.32, 0.26]),
    "park": np.array([0.17, 0.22, 0.12]),
    "studio": np.full(3, 0.30),
    "library": np.array([0.24, 0.19, 0.15]),
    "cafe": np.array([0.24, 0.19, 0.15]),
}
"""Light that the ground of a place sends back, linear RGB for an ambient light of 1."""

OUTDOOR_LIGHTS = ("midday", "morning", "sunset", "overcast")
INDOOR_LIGHTS = ("window", "lamp")
PLACES: dict[str, Place] = {
    "studio": Place(
        words=("in front of {article} {backdrop} studio backdrop",),
        asked=("in a studio", "studio portrait"),
        lights=("softbox", "side"),
        painter=indoors.studio,
    ),
    "park": Place(
        words=("in a park",), asked=("in the park", "outdoors in a park"), lights=OUTDOOR_LIGHTS, painter=outdoors.park
    ),
    "beach": Place(
        words=("on a beach by the sea", "on a sandy beach"),
        asked=("on a beach", "at the beach", "at the seaside"),
        lights=OUTDOOR_LIGHTS,
        painter=outdoors.beach,
    ),
    "living room": Place(
        words=("in a living room",),
        asked=("at home", "in the living room"),
        lights=INDOOR_LIGHTS,
        painter=indoors.living_room,
    ),
    "street": Place(
        words=("on a city street",),
        asked=("in the street", "on a street", "in town"),
        lights=("midday", "overcast", "sunset", "dusk"),
        painter=outdoors.street,
    ),
    "night": Place(words=("in a city at night",), asked=("city at night",), lights=("night",), painter=outdoors.night),
    "snow": Place(
        words=("in a snowy landscape",),
        asked=("in the snow", "in winter"),
        lights=("midday", "overcast", "sunset"),
        painter=outdoors.snow,
    ),
    "cafe": Place(
        words=("in a cafe",), asked=("in a coffee shop", "at a cafe"), lights=INDOOR_LIGHTS, painter=indoors.cafe
    ),
    "library": Place(words=("in a library",), asked=("in the library",), lights=INDOOR_LIGHTS, painter=indoors.library),
    "kitchen": Place(words=("in a kitchen",), asked=("in the kitchen",), lights=INDOOR_LIGHTS, painter=indoors.kitchen),
}
