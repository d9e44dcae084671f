"""Hair of rendered people: it grows where it should, lies on any head, and leaves the eyes free."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainers.people.accessories import HATS, Hat
from trainers.people.beard import BEARDS, beard_at_age, beard_density, brow_density, sample_beard
from trainers.people.combing import cut_below
from trainers.people.hair import Growth, hair_strands, strands
from trainers.people.hairstyles import STYLES, sample_hair_style, style_at_age
from trainers.people.identity import Appearance, Person, sample_identity
from trainers.people.mesh import MeshMissing, PeopleMesh, find_mesh
from trainers.people.scalp import HeadFrame, above_hairline
from trainers.people.strands import BROW, HEAD, strand_keys, visible_points

SAMPLES_PER_DM = 40.0


@pytest.fixture(scope="module")
def mesh() -> PeopleMesh:
    try:
        return PeopleMesh(find_mesh())
    except MeshMissing as missing:
        pytest.skip(str(missing))


def person(seed: int = 3, **look) -> Person:
    return Person(sample_identity(seed), Appearance(**{"age": 30.0, **look}))


def head_hair(mesh: PeopleMesh, who: Person, samples_per_dm: float = SAMPLES_PER_DM):
    body = mesh.body(who)
    return hair_strands(body, HeadFrame(body), samples_per_dm)


def test_strand_keys_find_what_a_loop_over_all_points_finds():
    generator = torch.Generator().manual_seed(1)
    height, width, knots = 12, 15, 3
    screen = torch.rand(20, knots, 3, generator=generator) * torch.tensor([20.0, 16.0, 3.0]) - torch.tensor(
        [2.0, 2.0, -1.0]
    )
    keys, count = strand_keys(screen, height, width)
    nearest = np.full((height, width), np.inf)
    for strand in screen.double().numpy():
        for place in np.linspace(0, knots - 1, count):
            first = min(int(place), knots - 2)
            x, y, z = strand[first] + (strand[first + 1] - strand[first]) * (place - first)
            column, row = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
            if 0 <= column < width and 0 <= row < height:
                nearest[row, column] = min(nearest[row, column], z)
    found = visible_points(keys, torch.full_like(keys, torch.iinfo(torch.int64).max), count)
    drawn = np.full(height * width, np.inf)
    drawn[found.sample.numpy()] = found.depth.numpy()
    # Points that fall on the border between two samples may round either way.
    agree = np.isclose(drawn.reshape(height, width), nearest, rtol=1e-5) | (
        np.isinf(drawn.reshape(height, width)) & np.isinf(nearest)
    )
    assert agree.mean() > 0.97
    position = found.at(screen)
    assert torch.allclose(position[:, 2], found.depth, atol=1e-4)


def test_wide_points_cover_the_neighbour_too():
    screen = torch.tensor([[[4.2, 3.0, 2.0], [4.2, 6.0, 2.0]]])
    covered = {}
    for wide in (1, 2, 3):
        keys, count = strand_keys(screen, 10, 10, wide=wide)
        found = visible_points(keys, torch.full_like(keys, torch.iinfo(torch.int64).max), count)
        covered[wide] = sorted(set((found.sample % 10).tolist()))
    assert covered == {1: [4], 2: [4, 5], 3: [3, 4, 5]}


def test_cutting_shortens_only_what_hangs_below_the_line():
    t = np.linspace(0, 1, 5)
    hanging = np.stack([0 * t, 1 - 2 * t, t], 1)
    short = np.stack([0 * t, 1 - 0.5 * t, t], 1)
    cut = cut_below(np.stack([hanging, short]), np.array([0.25, 0.25]))
    assert cut[0, -1] == pytest.approx([0, 0.25, 0.375])
    assert np.allclose(np.diff(cut[0, :, 1]), -0.75 / 4)
    assert np.allclose(cut[1], short)


@pytest.mark.parametrize("style", [name for name in STYLES if name != "bald"])
def test_every_style_lies_on_every_head(mesh, style):
    for seed, age in ((1, 3.0), (2, 9.0), (3, 30.0), (4, 77.0)):
        who = person(seed, age=age, hair_style=style)
        frame = HeadFrame(mesh.body(who))
        hair = head_hair(mesh, who)
        assert torch.isfinite(hair.knots).all()
        assert hair.template.abs().max() < 5
        points = hair.template.reshape(-1, 3)
        points = points[points[:, 1] > -0.2]
        distance, skin = mesh.scalp.skull(frame.rest).at(*points.numpy().T)
        # Strands may graze the skull, which is measured on a coarse grid, but not run through the head.
        assert np.mean(distance < skin - 0.06) < 0.02
        assert (distance[:, None] > 0.5).all()


@pytest.mark.parametrize("style", list(STYLES))
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_hair_never_covers_the_eyes(mesh, style, seed):
    who = person(seed, hair_style=style)
    body = mesh.body(who)
    hair = hair_strands(body, HeadFrame(body), SAMPLES_PER_DM)
    if hair is None:
        return
    # Fine points along each strand, seen from the front.
    points = torch.lerp(hair.knots[:, :-1, None], hair.knots[:, 1:, None], torch.linspace(0, 1, 5)[:, None]).reshape(
        -1, 3
    )
    for centre, radius in body.eyes.values():
        over = (points[:, :2] - centre[:2]).norm(dim=1) < 1.15 * radius
        covering = over & (points[:, 2] > centre[2])
        assert covering.float().sum() <= 3


def test_the_same_person_has_the_same_hair_and_another_person_other_hair(mesh):
    first, again = (head_hair(mesh, person(5, hair_style="shoulder")) for _ in range(2))
    assert torch.equal(first.knots, again.knots)
    assert torch.equal(first.tone, again.tone)
    identity = person(5).identity
    other = Person(replace(identity, seed=identity.seed + 1), Appearance(age=30.0, hair_style="shoulder"))
    assert not torch.allclose(first.knots[:100], head_hair(mesh, other).knots[:100], atol=0.02)


def test_larger_pictures_show_more_of_the_same_strands(mesh):
    small = head_hair(mesh, person(5, hair_style="long waves"), 30.0)
    large = head_hair(mesh, person(5, hair_style="long waves"), 90.0)
    assert len(large) > 1.5 * len(small)
    assert torch.equal(large.knots[: len(small)], small.knots)


@pytest.mark.parametrize("kind", list(HATS))
@pytest.mark.parametrize("style", ["afro", "quiff", "long curls", "side part"])
def test_hair_under_a_hat_stays_inside_it(mesh, kind, style):
    from trainers.people.accessories import hat as hat_parts

    who = person(6, hair_style=style, hat=Hat(kind=kind))
    body = mesh.body(who)
    frame = HeadFrame(body)
    hair = hair_strands(body, frame, SAMPLES_PER_DM)
    skull = mesh.scalp.skull(frame.rest)
    height, slope = who.appearance.hat.rim
    points = hair.template.reshape(-1, 3)
    covered = points[points[:, 1] > height + slope * points[:, 2]]
    assert len(covered) > 100
    distance, skin = skull.at(*covered.numpy().T)
    crown = hat_parts(body)[0].template
    outer, below = skull.at(*crown.numpy().T)
    assert (distance - skin).max() < (outer - below).min()


def test_bald_people_have_no_head_hair_and_keep_their_brows(mesh):
    who = person(7, hair_style="bald")
    kinds = torch.cat([s.kind for s in strands(mesh.body(who), SAMPLES_PER_DM)])
    assert set(kinds.tolist()) == {BROW}


def test_hair_recedes_with_age_in_some_men_and_never_grows_back():
    men = [i for i in (sample_identity(s) for s in range(120)) if not i.female]
    recessions = {
        age: np.array([Growth.of(Person(i, Appearance(age=age))).recession for i in men]) for age in (20.0, 50.0, 75.0)
    }
    assert (recessions[20.0] <= recessions[50.0] + 1e-9).all()
    assert (recessions[50.0] <= recessions[75.0] + 1e-9).all()
    assert recessions[20.0].max() < 0.1
    assert 0.2 < np.mean(recessions[75.0] > 0.3) < 0.8
    front = torch.tensor([[0.0, 1.1, 0.75], [0.45, 1.02, 0.55]])
    assert (above_hairline(front, 0.9) < above_hairline(front)).all()
    crown = torch.tensor([[0.0, 1.1, -0.6]])
    assert above_hairline(crown, 0.0, 0.7) < 0 < above_hairline(crown)


def test_children_are_not_dressed_as_men():
    for style in STYLES:
        assert style_at_age(style, 6.0) not in ("bald", "quiff", "buzz")
        assert style_at_age(style, 30.0) == style
        assert style_at_age(style, 2.0) in STYLES
    assert {beard_at_age(b, 12.0) for b in BEARDS} == {"none"}
    assert beard_at_age("full", 18.0) == "stubble"


def test_beards_grow_on_cheeks_chin_and_lip_only():
    full = BEARDS["full"]
    inside = torch.tensor([[0.0, -0.6, 0.98], [0.55, -0.35, 0.62], [0.10, -0.17, 1.1]])
    outside = torch.tensor(
        [[0.29, 0.34, 0.8], [0.0, 0.9, 0.95], [0.35, 0.05, 0.95], [0.0, 0.05, 1.25], [0.0, -1.4, 0.3]]
    )
    assert (beard_density(inside, full) > 0.5).all()
    assert (beard_density(outside, full) < 0.05).all()
    assert beard_density(inside[1:2], BEARDS["goatee"]) < 0.05
    assert beard_density(inside[2:], BEARDS["moustache"]) > 0.5 > beard_density(inside[:1], BEARDS["moustache"])


def test_brows_lie_above_the_eyes():
    brows = person(3).identity.brows
    along = torch.linspace(0.12, 0.55, 40)
    grid = torch.stack(torch.meshgrid(along, torch.linspace(0.3, 0.75, 60), indexing="ij"), -1).reshape(-1, 2)
    density, _ = brow_density(torch.cat([grid, torch.full((len(grid), 1), 0.9)], 1), brows)
    where = (grid[:, 1] * density).sum() / density.sum()
    assert 0.44 < where < 0.62
    assert density[grid[:, 1] < 0.38].max() < 0.1


def test_styles_and_beards_are_mixed():
    rng = np.random.default_rng(0)
    for female in (True, False):
        worn = [sample_hair_style(rng, female=female, african=share) for share in (0.05, 0.9) for _ in range(200)]
        assert set(worn) <= set(STYLES)
        assert len(set(worn)) >= 9
    assert {sample_beard(rng) for _ in range(200)} == set(BEARDS)


def test_strands_carry_what_shading_needs(mesh):
    for part in strands(mesh.body(person(8, hair_style="ponytail", beard="full")), SAMPLES_PER_DM):
        for values in (part.layer, part.tone, part.pigment, part.kind):
            assert values.shape == (len(part),)
        assert part.layer.min() >= 0
        assert part.layer.max() <= 1
        assert part.casts_shadow == bool((part.kind == HEAD).all())
