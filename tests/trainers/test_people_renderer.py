"""The renderer of people: exact visibility, equal bytes, plausible light on every skin, faces that real models know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.shared import SHARED
from tests.trainers.people_mesh import shared_renderer
from trainers.people import raster
from trainers.people.accessories import Glasses
from trainers.people.identity import EXPRESSIONS, Appearance, Person, sample_identity
from trainers.people.lighting import AreaLight, Light
from trainers.people.measure import area_under_curve
from trainers.people.mesh import PeopleMesh, find_mesh
from trainers.people.renderer import Rendered, Renderer, portrait_camera
from trainers.people.surface import smoothstep

WHITE = (1.0, 1.0, 1.0)


def light(azimuth: float = 30.0, softness: float = 0.4) -> Light:
    return Light(
        key=AreaLight.at(azimuth, 30, colour=WHITE, softness=softness),
        fill=AreaLight.at(-azimuth, 5, colour=(0.2, 0.2, 0.2), softness=1.0),
        sky=(0.4, 0.4, 0.4),
        ground=(0.2, 0.2, 0.2),
    )


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return shared_renderer()


def portrait(renderer: Renderer, person: Person, *, size: int = 96, shine: Light | None = None) -> Rendered:
    actors = renderer.build([person])
    background = torch.full((size, size, 3), 0.3, device=renderer.device)
    return renderer.render(actors, portrait_camera(actors[0], face=0.4), shine or light(), background)


def somebody(seed: int = 3, **look) -> Person:
    return Person(sample_identity(seed), Appearance(**{"age": 30.0, "hair_style": "short"} | look))


def brute_force(screen: np.ndarray, faces: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest face and its depth for every sample by testing every sample against every triangle."""
    face, depth = np.full((height, width), -1), np.full((height, width), np.inf)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    for index, corners in enumerate(faces):
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = screen[corners].astype(np.float64)
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        u = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area
        v = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area
        w = 1 - u - v
        z = u * az + v * bz + w * cz
        wins = (u >= 0) & (v >= 0) & (w >= 0) & (z < depth)
        face[wins], depth[wins] = index, z[wins]
    return face, depth


def test_the_rasteriser_agrees_with_brute_force():
    rng = np.random.default_rng(5)
    height, width = 40, 56
    screen = np.concatenate(
        [rng.uniform(-10, 66, (90, 1)), rng.uniform(-10, 50, (90, 1)), rng.uniform(2, 9, (90, 1))], 1
    ).astype(np.float32)
    faces = np.arange(90).reshape(30, 3)
    expected_face, expected_depth = brute_force(screen, faces, height, width)
    found = raster.fragments(torch.from_numpy(screen), torch.from_numpy(faces), height, width)
    keys = raster.nearest(found, height * width)
    depth = raster.depth_image(keys, np.inf).reshape(height, width).numpy()
    face = torch.where(keys == raster.EMPTY, -1, keys & raster.FACE_BITS).reshape(height, width).numpy()
    agree = face == expected_face
    assert agree.mean() > 0.998  # samples exactly on an edge may go either way
    covered = agree & (face >= 0)
    np.testing.assert_allclose(depth[covered], expected_depth[covered], rtol=1e-4)
    hit = (keys != raster.EMPTY).nonzero()[:, 0]
    seen = raster.unpack(hit, keys[hit], torch.from_numpy(screen), torch.from_numpy(faces), width)
    place = (torch.from_numpy(screen)[torch.from_numpy(faces)[seen.face]] * seen.weights[..., None]).sum(1)
    inside = torch.from_numpy(agree.flatten()[hit.numpy()])
    torch.testing.assert_close(place[inside, 0], (hit % width).float()[inside], atol=0.05, rtol=0)


def test_neighbouring_triangles_leave_no_crack():
    rng = np.random.default_rng(6)
    grid = np.stack(np.meshgrid(np.linspace(-5, 70, 24), np.linspace(-5, 70, 24)), -1)
    grid[1:-1, 1:-1] += rng.uniform(-1.2, 1.2, (22, 22, 2))
    screen = np.concatenate([grid.reshape(-1, 2), np.full((576, 1), 5.0)], 1).astype(np.float32)
    corner = np.arange(576).reshape(24, 24)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, :-1], corner[1:, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (b, d, c))])
    found = raster.fragments(torch.from_numpy(screen), torch.from_numpy(faces), 64, 64)
    assert (raster.nearest(found, 64 * 64) != raster.EMPTY).all()


def test_a_cut_surface_ends_where_its_field_crosses_zero():
    screen = torch.tensor([[0.0, 0.0, 5.0], [39.0, 0.0, 5.0], [0.0, 39.0, 5.0], [39.0, 39.0, 5.0]])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
    found = raster.fragments(screen, faces, 40, 40, cut=14.5 - screen[:, 0])
    covered = raster.nearest(found, 1600).reshape(40, 40) != raster.EMPTY
    assert covered[:, :15].all()
    assert not covered[:, 15:].any()


def test_only_front_faces_are_drawn_when_backs_are_culled():
    screen = torch.tensor([[2.0, 2.0, 5.0], [30.0, 2.0, 5.0], [2.0, 30.0, 5.0]])
    for faces, expected in (([[0, 1, 2]], 0), ([[0, 2, 1]], 1)):
        found = raster.fragments(screen, torch.tensor(faces), 32, 32, cull=torch.tensor([True]))
        assert bool(len(found.sample)) is bool(expected)


def test_layers_come_nearest_first():
    found = raster.Fragments(torch.tensor([0, 0, 0, 1]), torch.tensor([7, 3, 5, 9]))
    first = raster.nearest(found, 2)
    second = raster.nearest(found, 2, behind=first)
    assert first.tolist() == [3, 9]
    assert second.tolist() == [5, raster.EMPTY]


def test_smoothstep_runs_both_ways():
    x = torch.linspace(-1, 2, 31)
    torch.testing.assert_close(smoothstep(0.0, 1.0, x), 1 - smoothstep(1.0, 0.0, x))


@pytest.mark.mesh
def test_equal_input_gives_equal_bytes(renderer):
    person = somebody(glasses=Glasses(), expression="grin")
    first = portrait(renderer, person)
    portrait(renderer, somebody(9))  # nothing stays behind from another picture
    again = portrait(renderer, person)
    assert torch.equal(first.picture, again.picture)
    assert torch.equal(first.people, again.people)
    assert first.picture.dtype == torch.uint8
    assert first.picture.shape == (96, 96, 3)


@pytest.mark.mesh
def test_cuda_makes_the_same_picture(renderer):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    person = somebody(5, expression="smile", yaw=0.2)
    there = portrait(Renderer(PeopleMesh(find_mesh(), device="cuda")), person).picture.cpu().float()
    here = portrait(renderer, person).picture.float()
    assert (there - here).abs().mean() < 0.7
    assert ((there - here).abs().amax(-1) > 24).float().mean() < 0.01


@pytest.mark.mesh
def test_the_background_stays_as_it_is_around_the_person(renderer):
    seen = portrait(renderer, somebody())
    expected = round((1.055 * 0.3 ** (1 / 2.4) - 0.055) * 255)
    corner = seen.picture[:4, :4][seen.people[:4, :4] < 0]
    assert (corner.int() - expected).abs().max() <= 1
    assert set(seen.people.unique().tolist()) == {-1, 0}


@pytest.mark.mesh
def test_nearer_people_cover_those_behind(renderer):
    left = somebody(3, position=(-0.6, 0.0, 0.0))
    right = somebody(4, position=(0.6, 0.0, 1.2))
    actors = renderer.build([left, right])
    camera = replace(portrait_camera(actors[0], face=0.22), target=(0.0, 1.5, 0.0))
    seen = renderer.render(actors, camera, light(), torch.full((96, 128, 3), 0.3))
    boxes, landmarks = seen.boxes, seen.landmarks
    assert boxes[0, 0] < boxes[1, 0]
    for index in range(2):
        inside = (landmarks[index] > boxes[index, :2]) & (landmarks[index] < boxes[index, 2:])
        assert inside.all()
    x, y = landmarks[1, 2].round().long().tolist()
    assert seen.people[y, x] == 1
    assert seen.visible[1] > seen.visible[0]
    assert seen.visible[1] > 0.75


@pytest.mark.mesh
@pytest.mark.parametrize("melanin", [0.0, 0.5, 1.0])
def test_every_skin_is_well_exposed(renderer, melanin):
    person = Person(replace(sample_identity(3), melanin=melanin), Appearance(age=30.0, hair_style="short"))
    for azimuth, softness in ((20, 1.0), (60, 0.1)):
        seen = portrait(renderer, person, shine=light(azimuth, softness))
        x0, y0, x1, y1 = seen.boxes[0].round().long().tolist()
        face = seen.picture[y0 + (y1 - y0) // 3 : y1, x0:x1].float() / 255
        brightness = face @ torch.tensor([0.2126, 0.7152, 0.0722])
        assert 0.20 < float(brightness.median()) < 0.78
        assert float((face > 0.985).all(-1).float().mean()) < 0.01  # nothing blown out
        assert float(brightness.quantile(0.9) - brightness.quantile(0.1)) > 0.08  # and not flat


@pytest.mark.mesh
def test_more_melanin_is_darker(renderer):
    def brightness(melanin: float) -> float:
        person = Person(replace(sample_identity(3), melanin=melanin), Appearance(age=30.0, hair_style="short"))
        seen = portrait(renderer, person)
        return float(seen.picture[seen.people == 0].float().mean())

    values = [brightness(m) for m in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert values == sorted(values, reverse=True)


@pytest.mark.mesh
def test_the_side_of_the_key_light_is_bright(renderer):
    def cheeks(azimuth: float) -> tuple[float, float]:
        seen = portrait(renderer, somebody(), shine=light(azimuth, 0.2))
        eyes = seen.landmarks[0, :2]
        y = int((eyes[:, 1].mean() + 3 * seen.landmarks[0, 2, 1]) / 4)
        return tuple(float(seen.picture[y - 2 : y + 3, int(x) - 2 : int(x) + 3].float().mean()) for x in eyes[:, 0])

    left, right = cheeks(-70)
    assert left > right + 15
    left, right = cheeks(70)
    assert right > left + 15


@pytest.mark.mesh
def test_dark_lenses_darken_the_eyes_and_clear_ones_do_not(renderer):
    def eyes(glasses: Glasses | None) -> float:
        pale = Person(replace(sample_identity(3), melanin=0.05), Appearance(age=30.0, glasses=glasses))
        seen = portrait(renderer, pale, size=128)
        around = [seen.picture[int(y) - 3 : int(y) + 4, int(x) - 5 : int(x) + 6] for x, y in seen.landmarks[0, :2]]
        return float(torch.stack([a.float().mean() for a in around]).mean())

    bare = eyes(None)
    assert eyes(Glasses(dark=True)) < 0.6 * bare
    assert eyes(Glasses(dark=False)) > 0.7 * bare


@pytest.mark.mesh
def test_a_grin_shows_teeth_and_a_smile_does_not(renderer):
    def brightest_in_mouth(expression: str) -> float:
        seen = portrait(renderer, somebody(12, expression=expression), size=160)
        (x0, y0), (x1, y1) = seen.landmarks[0, 3:].tolist()
        margin = 0.25 * (x1 - x0)
        middle = (y0 + y1) / 2
        mouth = seen.picture[int(middle - margin) : int(middle + margin), int(x0 + margin) : int(x1 - margin)].float()
        # Teeth are the only things in a mouth that are as blue as red.
        return float((mouth[..., 2] / mouth[..., 0].clamp(min=20)).flatten().quantile(0.98))

    assert brightest_in_mouth("grin") > brightest_in_mouth("smile") + 0.1


def test_area_under_curve_is_the_probability_of_a_right_order():
    positive, negative = np.array([0.9, 0.5, 0.4]), np.array([0.1, 0.5, 0.6, 0.2])
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert area_under_curve(positive, negative) == pytest.approx(np.mean(pairs))


@pytest.mark.mesh
@pytest.mark.shared
def test_real_models_find_and_tell_the_people_apart(renderer):
    """One face where we say it is; people resemble themselves and their own childhood most."""
    pack = SHARED / "real" / "packs" / "real_500m"
    if not pack.is_dir():
        pytest.skip(f"no real face pack at {pack}")
    from core.faces import FaceAnalyzer

    analyzer = FaceAnalyzer(pack)
    embeddings = []
    looks = [{"expression": e} for e in list(EXPRESSIONS)[:3]] + [{"yaw": 0.4, "roll": 0.1}]
    for k, look in enumerate(looks):
        own = []
        for age in (32.0, 32.0, 9.0):
            person = somebody(40 + k, **look | {"age": age, "turn": 0.1 * len(own)})
            seen = portrait(renderer, person, size=160, shine=light(-40 + 40 * len(own)))
            faces = analyzer.analyze(seen.picture.numpy())
            assert len(faces) == 1, (look, age)
            error = np.abs(faces[0].landmarks - seen.landmarks[0].numpy()).max()
            assert error < 0.10 * (seen.boxes[0, 2] - seen.boxes[0, 0]), (look, age, error)
            own.append(faces[0].embedding)
        embeddings.append(own)
    first, second, child = (np.stack([own[i] for own in embeddings]) for i in range(3))
    assert ((first @ second.T).argmax(1) == np.arange(len(looks))).all()
    assert np.diag(first @ child.T).mean() > (first @ child.T)[~np.eye(len(looks), dtype=bool)].mean() + 0.1
