"""Places behind rendered people: the same for a seed, true to their words, and lit by what they say."""

import numpy as np
import pytest
import torch

from trainers.people.camera import Camera
from trainers.people.daylight import LIGHTS
from trainers.people.indoors import BACKDROPS
from trainers.people.places import PLACES, choose_setting, light_of, paint


@pytest.mark.parametrize("place", PLACES)
def test_every_place_paints_in_every_light(place):
    for number, light in enumerate(PLACES[place].lights):
        setting = choose_setting(number, places=[place], lights=[light])
        picture = paint(setting, 48, 60)
        assert picture.shape == (48, 60, 3)
        assert picture.dtype == torch.float32
        assert torch.isfinite(picture).all()
        assert picture.min() >= 0
        assert torch.equal(picture, paint(setting, 48, 60))


def test_a_setting_is_a_function_of_its_seed():
    assert choose_setting(7) == choose_setting(7)
    assert len({choose_setting(seed).place for seed in range(80)}) == len(PLACES)
    assert not torch.equal(*(paint(choose_setting(s, places=["park"], lights=["midday"]), 48, 48) for s in (1, 2)))


def test_words_name_the_place_the_paper_and_the_light():
    setting = choose_setting(3, places=["studio"])
    assert f" {setting.backdrop} studio backdrop" in setting.place_words
    assert "{" not in setting.place_words
    assert setting.light_words in LIGHTS[setting.light].words
    for seed in range(40):
        words = choose_setting(seed, places=["studio"]).place_words
        assert ("an orange" in words) == ("orange" in words)


@pytest.mark.parametrize("paper", ["red", "green", "blue", "white", "black"])
def test_studio_paper_has_the_colour_of_its_word(paper):
    seed = next(s for s in range(500) if choose_setting(s, places=["studio"], lights=["softbox"]).backdrop == paper)
    mean = paint(choose_setting(seed, places=["studio"], lights=["softbox"]), 32, 32).mean((0, 1)).numpy()
    distances = {word: np.linalg.norm(mean - tone) for word, tone in BACKDROPS.items()}
    assert min(distances, key=distances.get) == paper


def test_night_is_darker_than_noon_and_sunset_warmer_than_overcast():
    def mean(place, light):
        return torch.stack([paint(choose_setting(s, places=[place], lights=[light]), 40, 40) for s in range(4)]).mean(
            (0, 1, 2)
        )

    assert mean("night", "night").sum() < 0.2 * mean("street", "midday").sum()
    sunset, overcast = mean("beach", "sunset"), mean("beach", "overcast")
    assert sunset[0] / sunset[2] > 1.3 * overcast[0] / overcast[2]


def test_the_light_comes_from_where_the_setting_says():
    for seed in range(30):
        setting = choose_setting(seed)
        light = light_of(setting)
        x, y, z = light.key.direction
        assert np.sign(x) == np.sign(setting.azimuth)
        assert np.degrees(np.arcsin(y)) == pytest.approx(setting.elevation, abs=1e-6)
        assert z > 0, "the key light must reach the faces"
        assert light.fill.direction[0] * x < 0
    assert (
        light_of(choose_setting(0, lights=["sunset"])).key.colour[0]
        > light_of(choose_setting(0, lights=["sunset"])).key.colour[2]
    )


def test_a_wider_picture_shows_more_of_the_place_at_the_same_height():
    setting = choose_setting(5, places=["beach"], lights=["midday"])
    square, wide = paint(setting, 60, 60, blur=0.06), paint(setting, 60, 90, blur=0.06)
    # sky on top, sand at the bottom, whatever the width
    assert torch.allclose(square[:6].mean((0, 1)), wide[:6].mean((0, 1)), atol=0.12)
    assert wide[-1, :, 2].mean() < wide[0, :, 2].mean()


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match="Unknown place or light 'moon'"):
        choose_setting(0, places=["moon"])
    with pytest.raises(ValueError, match="can be seen in"):
        choose_setting(0, places=["studio"], lights=["sunset"])


def test_camera_frames_a_rectangle():
    camera = Camera.framing(-2, 4, 0, 3, aspect=1.0, distance=10, depth=1)
    # width decides: 6 dm must fit, so 6 dm are the height of the picture too
    assert camera.target == (1.0, 1.5, 1)
    assert camera.focal / camera.distance == pytest.approx(1 / 6)
    assert Camera.framing(-2, 4, 0, 3, aspect=2.0, distance=10).focal / 10 == pytest.approx(1 / 3)
