import numpy as np
import pytest

from trainers.mini.faces.portraits import FIRST_HELD_OUT, PortraitSet
from trainers.mini.faces.render import draw_ages, render_people, traits_of
from trainers.people.identity import sample_identity
from trainers.people.mesh import MeshMissing, find_mesh


def mesh_is_missing():
    try:
        find_mesh()
    except MeshMissing:
        return True
    return False


def test_a_person_is_seen_as_an_adult_and_as_a_child():
    for seed in range(30):
        ages = np.array(draw_ages(np.random.default_rng(seed), 8))
        assert len(ages) == 8
        assert ages.min() >= 2
        assert ages.max() <= 80
        assert (ages >= 18).sum() >= 5
        assert (ages <= 9).sum() >= 1


def test_traits_are_comparable_numbers_and_belong_to_the_person():
    traits = np.stack([traits_of(sample_identity(seed)) for seed in range(300)])
    assert np.isfinite(traits).all()
    assert np.abs(traits.mean(0)).max() < 1.5
    assert traits.std(0).max() < 2
    assert np.median(traits.std(0)) > 0.5
    np.testing.assert_array_equal(traits[7], traits_of(sample_identity(7)))
    assert not np.array_equal(traits[7], traits[8])


@pytest.mark.parametrize("wrong", [{"pictures": 1}, {"people": 0}, {"size": 16}])
def test_too_little_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match="at least 2 pictures"):
        render_people(tmp_path, **({"first": 0, "people": 1, "pictures": 2, "size": 64} | wrong))


@pytest.mark.mesh
@pytest.mark.skipif(mesh_is_missing(), reason="the mesh of the rendered people is not here")
def test_rendered_portraits_are_cut_out_with_their_landmarks(tmp_path):
    render_people(tmp_path, first=0, people=2, pictures=2, size=64)
    trained = PortraitSet.open([tmp_path], held_out=False)
    held_out = PortraitSet.open([tmp_path], held_out=True)
    assert (set(trained.identity), set(held_out.identity)) == ({1}, {FIRST_HELD_OUT})
    for portraits in (trained, held_out):
        for index in range(2):
            portrait = portraits[index]
            assert portrait.rgba.shape == (64, 64, 4)
            x, y = portrait.landmarks[2].round().astype(int)
            assert portrait.rgba[y, x, 3] == 255  # the nose is the person's
            assert portrait.rgba[0, 0, 3] < 255  # the corner is not
            left, top, right, bottom = portrait.box
            inside = (portrait.landmarks > [left, top]).all() and (portrait.landmarks < [right, bottom]).all()
            assert inside
    written = (tmp_path / "0000000.npz").stat().st_mtime_ns
    render_people(tmp_path, first=0, people=2, pictures=2, size=64)
    assert (tmp_path / "0000000.npz").stat().st_mtime_ns == written
