"""The lights a place can be seen in: what they do to faces, to surfaces and to the sky, and what people call them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainers.people.canvas import Colour, colour


@dataclass(frozen=True, kw_only=True)
class Daylight:
    """One kind of light, before the small variations of a single picture.

    Colours are linear RGB. `key` is the strength of the sun, lamp or window against an ambient of 1; `softness`
    runs from 0 (hard shadows) to 1 (a window or an overcast sky); `elevation` is a range in degrees above the
    horizon. `surface` multiplies the colours of a painted place, `sky` are its colours from the zenith to the
    horizon. `words` are what a caption says, `asked` is how somebody in a hurry asks for it.
    """

    words: tuple[str, ...]
    asked: tuple[str, ...]
    key: float
    key_colour: Colour
    elevation: tuple[float, float]
    softness: float
    ambient_colour: Colour
    surface: Colour
    sky: tuple[Colour, Colour]
    brightness: float = 1.0


def _warmth(red: float, green: float, blue: float) -> Colour:
    """A light colour of unit luminance."""
    rgb = np.array([red, green, blue])
    return rgb / (rgb @ np.array([0.2126, 0.7152, 0.0722]))


LIGHTS: dict[str, Daylight] = {
    "midday": Daylight(
        words=("bright midday sunlight", "clear midday sun"),
        asked=("at noon", "in bright sun", "on a sunny day"),
        key=1.7,
        key_colour=_warmth(1.0, 0.97, 0.90),
        elevation=(38, 58),
        softness=0.15,
        ambient_colour=_warmth(0.93, 1.0, 1.12),
        surface=np.array([1.0, 0.98, 0.93]),
        sky=(colour("4f8fd6"), colour("bcd8ee")),
        brightness=1.05,
    ),
    "morning": Daylight(
        words=("soft morning light", "gentle morning light"),
        asked=("in the morning", "early in the morning"),
        key=1.0,
        key_colour=_warmth(1.0, 0.93, 0.80),
        elevation=(18, 32),
        softness=0.6,
        ambient_colour=_warmth(0.98, 1.0, 1.06),
        surface=np.array([0.86, 0.82, 0.74]),
        sky=(colour("9cc3e2"), colour("f6e9d4")),
    ),
    "sunset": Daylight(
        words=("golden sunset light", "warm evening sun"),
        asked=("at sunset", "in the evening sun", "at golden hour"),
        key=1.8,
        key_colour=_warmth(1.0, 0.72, 0.42),
        elevation=(8, 18),
        softness=0.3,
        ambient_colour=_warmth(1.02, 0.96, 1.08),
        surface=np.array([0.80, 0.58, 0.44]),
        sky=(colour("7f8fbf"), colour("ffbe74")),
        brightness=0.95,
    ),
    "overcast": Daylight(
        words=("overcast daylight", "flat grey daylight"),
        asked=("on a cloudy day", "under a grey sky", "overcast"),
        key=0.22,
        key_colour=_warmth(0.97, 1.0, 1.04),
        elevation=(45, 70),
        softness=1.0,
        ambient_colour=_warmth(0.97, 1.0, 1.05),
        surface=np.array([0.58, 0.61, 0.65]),
        sky=(colour("b4bcc6"), colour("d9dde1")),
        brightness=0.95,
    ),
    "dusk": Daylight(
        words=("the blue light of dusk", "blue twilight"),
        asked=("at dusk", "in the twilight"),
        key=0.35,
        key_colour=_warmth(1.0, 0.80, 0.62),
        elevation=(15, 35),
        softness=0.9,
        ambient_colour=_warmth(0.78, 0.96, 1.45),
        surface=np.array([0.15, 0.20, 0.34]),
        sky=(colour("27406f"), colour("a98fae")),
        brightness=0.72,
    ),
    "night": Daylight(
        words=("the warm light of street lamps", "the glow of street lights"),
        asked=("at night", "under street lamps"),
        key=1.8,
        key_colour=_warmth(1.0, 0.76, 0.46),
        elevation=(35, 55),
        softness=0.35,
        ambient_colour=_warmth(0.80, 0.92, 1.45),
        surface=np.array([0.030, 0.030, 0.040]),
        sky=(colour("05070f"), colour("18203a")),
        brightness=0.72,
    ),
    "window": Daylight(
        words=("soft daylight from a window", "cool window light"),
        asked=("by a window", "in daylight", "in the daytime"),
        key=1.1,
        key_colour=_warmth(0.97, 1.0, 1.06),
        elevation=(12, 30),
        softness=0.85,
        ambient_colour=_warmth(1.03, 1.0, 0.94),
        surface=np.array([0.72, 0.72, 0.72]),
        sky=(colour("e8f1fa"), colour("ffffff")),
        brightness=0.98,
    ),
    "lamp": Daylight(
        words=("warm lamp light", "cosy evening lamp light"),
        asked=("by lamp light", "with the lamps on", "in the evening"),
        key=1.3,
        key_colour=_warmth(1.0, 0.74, 0.45),
        elevation=(15, 40),
        softness=0.6,
        ambient_colour=_warmth(1.12, 0.98, 0.78),
        surface=np.array([0.46, 0.31, 0.18]),
        sky=(colour("0b1226"), colour("1b2748")),
        brightness=0.82,
    ),
    "softbox": Daylight(
        words=("soft studio light", "even studio light"),
        asked=("in soft light", "evenly lit"),
        key=0.9,
        key_colour=_warmth(1.0, 1.0, 1.0),
        elevation=(22, 42),
        softness=0.9,
        ambient_colour=_warmth(1.0, 1.0, 1.0),
        surface=np.array([0.9, 0.9, 0.9]),
        sky=(colour("ffffff"), colour("ffffff")),
    ),
    "side": Daylight(
        words=("dramatic side light", "hard light from the side"),
        asked=("lit from the side", "in hard light"),
        key=3.2,
        key_colour=_warmth(1.0, 0.97, 0.92),
        elevation=(12, 28),
        softness=0.2,
        ambient_colour=_warmth(0.95, 1.0, 1.08),
        surface=np.array([0.36, 0.36, 0.37]),
        sky=(colour("ffffff"), colour("ffffff")),
        brightness=0.9,
    ),
}
