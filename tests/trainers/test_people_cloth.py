"""Clothes of rendered people: colour words are true, sleeves and trunks are whole, garments differ."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from core.colours import COLOURS
from trainers.people.accessories import FRAMES, Glasses, Hat, glasses, sample_glasses, sample_hat
from trainers.people.cloth import GARMENTS, Clothes, clothes, linear_colour, sample_clothes, shade
from trainers.people.identity import Appearance, Person, sample_identity
from trainers.people.lighting import AreaLight, Light
from trainers.people.mesh import Body, MeshMissing, PeopleMesh, find_mesh
from trainers.people.renderer import Renderer, portrait_camera
from trainers.people.surface import Noise, Part, SurfacePoints


@pytest.fixture(scope="module")
def mesh() -> PeopleMesh:
    try:
        return PeopleMesh(find_mesh())
    except MeshMissing as missing:
        pytest.skip(str(missing))


def wearing(
    garment: str = "t-shirt", colour: str = "blue", second: str = "white", *, seed: int = 4, age: float = 30.0
) -> Person:
    outfit = Clothes(garment=garment, colour=colour, second_colour=second)
    return Person(sample_identity(seed), Appearance(age=age, clothes=outfit))


def lab(srgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) of sRGB 0..1, from the definitions of both."""
    linear = np.where(srgb < 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def nearest_word(srgb: np.ndarray) -> str:
    words = list(COLOURS)
    palette = lab(np.array([COLOURS[w] for w in words]) / 255.0)
    return words[int(np.linalg.norm(palette - lab(srgb), axis=1).argmin())]


def looks(part: Part, person: Person) -> torch.Tensor:
    """(P, 3) linear albedo in the middle of the part's visible faces."""
    visible = (part.cut[part.faces] > 0.1).all(1)
    middle = lambda values: values[part.faces[visible]].mean(1)  # noqa: E731
    count = int(visible.sum())
    points = SurfacePoints(
        template=middle(part.template),
        position=middle(part.vertices),
        normal=middle(part.normals),
        view=torch.tensor([[0.0, 0.0, 1.0]]).expand(count, 3),
        extra=torch.nn.functional.pad(middle(part.extra), (0, 8 - part.extra.shape[1])),
        person=torch.zeros(count, dtype=torch.long),
        footprint=torch.full((count,), 0.02),
        people=[person],
        noise=Noise(),
    )
    return shade(points).albedo


def srgb(linear: torch.Tensor) -> np.ndarray:
    value = linear.double().numpy()
    return np.where(value < 0.0031308, 12.92 * value, 1.055 * value ** (1 / 2.4) - 0.055)


def test_colour_words_are_far_apart_and_mean_what_they_say():
    for first, second in itertools.combinations(COLOURS, 2):
        distance = np.linalg.norm(lab(np.array(COLOURS[first]) / 255.0) - lab(np.array(COLOURS[second]) / 255.0))
        assert distance > 18, (first, second)
    lightness = {word: lab(np.array(rgb) / 255.0)[0] for word, rgb in COLOURS.items()}
    assert lightness["black"] < 20 < lightness["navy"] + 5 < lightness["grey"] < lightness["white"]
    hues = {word: np.degrees(np.arctan2(*lab(np.array(rgb) / 255.0)[[2, 1]])) % 360 for word, rgb in COLOURS.items()}
    expected = {"red": 30, "orange": 60, "yellow": 90, "green": 145, "teal": 200, "blue": 285, "purple": 315, "pink": 0}
    for word, hue in expected.items():
        assert abs((hues[word] - hue + 180) % 360 - 180) < 25, word


@pytest.mark.parametrize("garment", [g for g in GARMENTS if g not in ("jacket", "striped t-shirt")])
def test_a_garment_has_the_colour_of_its_word(mesh, garment):
    for colour in COLOURS:
        person = wearing(garment, colour)
        for part in clothes(mesh.body(person)):
            albedo = looks(part, person)
            assert nearest_word(srgb(albedo.mean(0))) == colour


def test_pictures_show_the_colour_of_the_word(mesh):
    """The mean pixel of the chest in white light from the front, against the nearest word of the palette."""
    renderer = Renderer(mesh)
    light = Light(
        key=AreaLight.at(15, 25, colour=(0.7, 0.7, 0.7), softness=1.0),
        fill=AreaLight.at(-40, 10, colour=(0.3, 0.3, 0.3), softness=1.0),
        sky=(0.5, 0.5, 0.5),
        ground=(0.35, 0.35, 0.35),
    )
    for index, colour in enumerate(COLOURS):
        actors = renderer.build([wearing("t-shirt", colour, seed=4 + index % 3)])
        camera = portrait_camera(actors[0], face=0.22, shift=(0.0, -1.2))
        picture = renderer.render(actors, camera, light, torch.full((64, 64, 3), 0.4)).picture
        chest = picture[47:62, 22:42].double().mean((0, 1)).numpy() / 255
        assert nearest_word(chest) == colour


def test_two_coloured_garments_have_both_colours(mesh):
    person = wearing("striped t-shirt", "red", "navy")
    (part,) = clothes(mesh.body(person))
    words = [nearest_word(c) for c in srgb(looks(part, person))]
    assert 0.25 < words.count("red") / len(words) < 0.75
    assert 0.25 < words.count("navy") / len(words) < 0.75

    person = wearing("jacket", "brown", "light blue")
    parts = clothes(mesh.body(person))
    found = [nearest_word(srgb(looks(part, person).mean(0))) for part in parts]
    assert found == ["light blue", "light blue", "brown", "brown"]


@pytest.mark.parametrize("garment", list(GARMENTS))
@pytest.mark.parametrize("age", [4.0, 30.0, 75.0])
def test_garments_cover_the_trunk_and_leave_the_head_free(mesh, garment, age):
    body = mesh.body(wearing(garment, age=age))
    suit = mesh.suit
    covered = torch.stack([part.cut for part in clothes(body)]).amax(0)
    trunk = (suit.y < -2.4) & (suit.side < 1.2)
    assert (covered[trunk] > 0).float().mean() > 0.98
    shoulders = (suit.y < -1.2) & (suit.y > -2.0) & (suit.side > 1.25) & (suit.side < 1.6)
    assert (covered[shoulders] > 0).all()
    assert (covered[suit.y > -0.5] < 0).all()


def test_sleeves_end_where_the_garment_says(mesh):
    suit = mesh.suit
    forearm = suit.sleeve > 2.6
    assert forearm.sum() > 20
    for garment in GARMENTS:
        base = clothes(mesh.body(wearing(garment)))
        covered = torch.stack([part.cut for part in base]).amax(0)[forearm] > 0
        assert covered.all() == (garment not in ("t-shirt", "striped t-shirt", "dress")), garment


def test_layers_lie_outside_the_skin_and_above_each_other(mesh):
    body = mesh.body(wearing("jacket"))
    surface, normals = mesh.suit.surface(body)
    lifts = [((part.vertices - surface) * normals).sum(1).median() for part in clothes(body)]
    assert all(lift > 0.03 for lift in lifts)
    assert lifts[0] < lifts[1] < lifts[2] < lifts[3]


def test_split_faces_cover_the_same_surface(mesh):
    suit = mesh.suit

    def area(vertices: torch.Tensor, faces: torch.Tensor) -> float:
        a, b, c = vertices[faces].unbind(1)
        return float(torch.linalg.cross(b - a, c - a).norm(dim=1).sum())

    whole = mesh.faces_of("helper-tights")
    assert len(suit.faces) > 1.3 * len(whole)
    assert area(suit.template, suit.faces) == pytest.approx(area(mesh.template, whole), rel=1e-4)


def test_captions_name_every_garment():
    assert (
        Clothes(garment="striped t-shirt", colour="red", second_colour="navy").words == "red and navy striped T-shirt"
    )
    assert Clothes(garment="jacket", colour="navy").words == "navy jacket over a white shirt"
    assert Clothes(garment="roll neck", colour="teal").words == "teal roll-neck sweater"
    assert Glasses(dark=True).words == "sunglasses"
    assert Hat(kind="cap", colour="green").words == "green baseball cap"


def test_unknown_words_are_refused_with_the_known_ones():
    for make in (
        lambda: Clothes(garment="toga"),
        lambda: Clothes(colour="mauve"),
        lambda: Hat(kind="crown"),
        lambda: Glasses(frame="heart"),
        lambda: Glasses(colour="mauve"),
    ):
        with pytest.raises(ValueError, match="choose one of"):
            make()
    assert linear_colour("white")[0] == pytest.approx(0.84, abs=0.02)


def test_outfits_are_varied():
    rng = np.random.default_rng(0)
    worn = [sample_clothes(rng, female=bool(i % 2), age=30.0) for i in range(300)]
    assert {c.garment for c in worn} == set(GARMENTS)
    assert {c.colour for c in worn} == set(COLOURS)
    assert all(c.second_colour != c.colour for c in worn)
    assert "dress" not in {sample_clothes(rng, female=False, age=30.0).garment for _ in range(100)}
    assert len({sample_hat(rng).kind for _ in range(50)}) == 3
    assert sum(sample_glasses(rng).dark for _ in range(300)) < 40


@pytest.mark.parametrize("frame", list(FRAMES))
def test_lenses_lie_before_the_eyes_of_any_face(mesh, frame):
    for seed, age in ((1, 5.0), (2, 30.0), (3, 76.0)):
        person = Person(sample_identity(seed), Appearance(age=age, yaw=0.6, pitch=0.2, glasses=Glasses(frame=frame)))
        body: Body = mesh.body(person)
        rims, lenses = glasses(body)
        assert lenses.blended
        ahead = body.head_rotation[:, 2]
        centres = lenses.vertices.reshape(2, -1, 3).mean(1)
        for lens, (eye, radius) in zip(centres, (body.eyes["l"], body.eyes["r"]), strict=True):
            offset = lens - eye
            assert offset @ ahead > radius
            assert (offset - ahead * (offset @ ahead)).norm() < 0.9 * radius
        assert torch.isfinite(rims.vertices).all()
