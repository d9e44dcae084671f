from dataclasses import replace

import numpy as np
import pytest
from insightface.utils import face_align

from core.face_encoder import ARCFACE_TEMPLATE
from tests.trainers.mini_faces_portraits import BOX, LANDMARKS, SIZE, drawn_portrait, write_portraits
from trainers.mini.faces.attributes import box_crop
from trainers.mini.faces.backgrounds import random_background
from trainers.mini.faces.portraits import (
    Portrait,
    PortraitSet,
    shard_is_finished,
    write_shard,
)
from trainers.mini.faces.scenes import (
    MIRRORED,
    VISIBLE,
    aligned_crop,
    chain,
    degrade,
    occlude,
    paste,
    random_scene,
    similarity,
    transform,
)


def marked_portrait():
    """Black, opaque; each landmark is a disc of its own pure colour, so that it can be found again."""
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[..., 3] = 255
    for (x, y), colour in zip(LANDMARKS, MARKS, strict=True):
        rgba[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4, :3] = colour
    return Portrait(rgba, LANDMARKS, BOX, 1, 30.0, True, np.zeros(3, np.float32))


MARKS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])


def find_marks(picture):
    """(5, 2) centre of each mark's colour."""
    points = []
    for colour in MARKS:
        weight = np.clip(1 - np.abs(picture.astype(float) - colour).sum(-1) / 150, 0, 1)
        y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
        total = max(weight.sum(), 1e-9)  # nothing of that colour: far away from everything
        points.append([(weight * x).sum() / total, (weight * y).sum() / total])
    return np.array(points)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_portraits(tmp_path_factory.mktemp("portraits"), people=20)


def test_portraits_come_back_as_they_were_written(directory):
    portraits = PortraitSet.open([directory], held_out=False)
    index = int(np.flatnonzero(portraits.identity == 17)[1])
    found, expected = portraits[index], drawn_portrait(17, 1)
    for name in ("rgba", "landmarks", "box"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.traits, expected.traits)
    assert (found.identity, found.age, found.female) == (17, expected.age, expected.female)


def test_held_out_people_are_never_trained_on(directory):
    trained = PortraitSet.open([directory, directory], held_out=False)
    held_out = PortraitSet.open([directory, directory], held_out=True)
    assert not set(trained.identity) & set(held_out.identity)
    assert len(trained) + len(held_out) == 2 * 2 * 20
    # The same number in another directory is another person: persons 0 and 16, twice.
    assert len(set(held_out.identity)) == 4


def test_traits_of_different_directories_have_their_own_columns(directory, tmp_path):
    write_shard(tmp_path, 0, [replace(drawn_portrait(3), traits=np.array([1.0, 2.0]))])
    traits = PortraitSet.open([directory, tmp_path], held_out=False).traits
    np.testing.assert_array_equal(traits[-1], [*[np.nan] * 6, 1, 2])
    np.testing.assert_array_equal(traits[0], [*drawn_portrait(1).traits, np.nan, np.nan])


def test_unfinished_shards_are_ignored(directory, tmp_path):
    write_shard(tmp_path, 0, [drawn_portrait(1)])
    write_shard(tmp_path, 1, [drawn_portrait(2)])
    (tmp_path / "0000001.npz").rename(tmp_path / "0000001.unfinished")
    assert list(PortraitSet.open([tmp_path], held_out=False).identity) == [1]
    assert shard_is_finished(tmp_path, 0)
    assert not shard_is_finished(tmp_path, 1)


def test_empty_directories_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="render --out"):
        PortraitSet.open([tmp_path], held_out=False)


def test_similarity_equals_insightfaces():
    points = LANDMARKS + np.random.default_rng(0).normal(0, 3, LANDMARKS.shape).astype(np.float32)
    ours = similarity(points.astype(float), np.array(ARCFACE_TEMPLATE))
    np.testing.assert_allclose(ours, face_align.estimate_norm(points), rtol=1e-4, atol=1e-4)


def test_pasting_in_place_blends_by_alpha():
    rgba = np.random.default_rng(0).integers(0, 256, (32, 32, 4), np.uint8)
    picture = np.full((32, 32, 3), 100, np.uint8)
    paste(picture, rgba, np.array([[1.0, 0, 0], [0, 1, 0]]))
    alpha = rgba[..., 3:] / 255
    np.testing.assert_allclose(picture, 100 * (1 - alpha) + rgba[..., :3] * alpha, atol=1)


@pytest.mark.parametrize("scale", [0.35, 0.5, 1.0, 1.7])
def test_pasting_moves_pixels_where_the_matrix_says(scale):
    portrait = marked_portrait()
    matrix = np.array([[scale, 0.1 * scale, 9.3], [-0.1 * scale, scale, 20.6]])
    picture = np.zeros((200, 200, 3), np.uint8)
    paste(picture, portrait.rgba, matrix)
    np.testing.assert_allclose(find_marks(picture), transform(matrix, LANDMARKS), atol=0.5)


def test_pasting_says_what_it_hides():
    rgba = np.zeros((32, 32, 4), np.uint8)
    rgba[8:20, 4:30, 3] = 255
    hidden = paste(np.zeros((60, 50, 3), np.uint8), rgba, np.array([[1.0, 0, 10], [0, 1, 20]]))
    expected = np.zeros((60, 50), bool)
    expected[28:40, 14:40] = True
    np.testing.assert_array_equal(hidden, expected)


def test_chain_does_one_after_the_other():
    rng = np.random.default_rng(0)
    outer, inner, points = rng.normal(size=(2, 3)), rng.normal(size=(2, 3)), rng.normal(size=(7, 2))
    np.testing.assert_allclose(
        transform(chain(outer, inner), points), transform(outer, transform(inner, points)), atol=1e-12
    )


def test_pasting_outside_the_picture_changes_nothing():
    picture = np.full((20, 20, 3), 7, np.uint8)
    paste(picture, marked_portrait().rgba, np.array([[1.0, 0, 500], [0, 1, 500]]))
    assert (picture == 7).all()


def test_aligned_crop_puts_the_landmarks_on_the_template():
    crop = aligned_crop(None, marked_portrait())
    best = transform(similarity(LANDMARKS.astype(float), np.array(ARCFACE_TEMPLATE)), LANDMARKS)
    np.testing.assert_allclose(find_marks(crop), best, atol=0.6)


class OnePortrait:
    """As much of a PortraitSet as scenes need."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return marked_portrait()


def test_scene_labels_are_where_the_faces_are():
    right, seen = [0, 0], 0
    for seed in range(200):
        scene = random_scene(np.random.default_rng(seed), OnePortrait(), 160, damaged=False)
        assert scene.box.shape == (len(scene.portrait), 4)
        assert scene.landmarks.shape == (len(scene.portrait), 5, 2)
        if len(scene.box) != 1:
            continue
        left, top, right_side, bottom = scene.box[0]
        if (scene.landmarks < 3).any() or (scene.landmarks > 156).any() or bottom - top < 60:
            continue
        seen += 1
        # Cut everything else away: shapes of the background may have the colour of a mark.
        low = np.maximum(np.floor([left, top]).astype(int), 0)
        found = find_marks(scene.picture[low[1] : int(bottom) + 1, low[0] : int(right_side) + 1]) + low
        # The marks of a mirrored portrait have changed sides, the landmarks have not: left stays left.
        for mirrored, order in enumerate((list(range(5)), MIRRORED)):
            right[mirrored] += np.max(np.linalg.norm(found[order] - scene.landmarks[0], axis=1)) < 3
    assert min(right) > 4
    assert sum(right) > 0.7 * seen  # something may stand before a mark


class ColouredPortraits:
    """Opaque squares, each person in a colour of their own."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        rgba = np.full((SIZE, SIZE, 4), 255, np.uint8)
        rgba[..., :3] = self.colour(index)
        return replace(marked_portrait(), rgba=rgba)

    def colour(self, index):
        return np.array([index // 100, index // 10 % 10, index % 10]) * 25


def share_shown(portraits, scene, box, index):
    left, top, right, bottom = np.clip(box.round().astype(int), 0, len(scene.picture))
    inside = scene.picture[top:bottom, left:right].astype(int)
    return (np.abs(inside - portraits.colour(index)).max(-1) < 4).mean()


def test_faces_behind_others_are_not_to_be_found():
    portraits, shown, hidden = ColouredPortraits(), [], 0
    for seed in range(300):
        scene = random_scene(np.random.default_rng(seed), portraits, 160, damaged=False)
        shown += [share_shown(portraits, scene, *face) for face in zip(scene.box, scene.portrait, strict=True)]
        hidden += len(scene.hidden)
    assert hidden > 10
    assert min(shown) > 0.2  # something small may cover a part
    assert np.mean(np.array(shown) > VISIBLE - 0.02) > 0.9


def test_scenes_have_all_sizes_and_counts(directory):
    portraits = PortraitSet.open([directory], held_out=False)
    scenes = [random_scene(np.random.default_rng(seed), portraits, 128) for seed in range(150)]
    counts = [len(scene.box) for scene in scenes]
    heights = np.concatenate([scene.box[:, 3] - scene.box[:, 1] for scene in scenes])
    assert counts.count(0) > 5
    assert max(counts) >= 4
    assert heights.min() < 24
    assert heights.max() > 100
    assert all(scene.picture.dtype == np.uint8 and scene.picture.shape == (128, 128, 3) for scene in scenes)


def test_everything_random_follows_the_generator(directory):
    portraits = PortraitSet.open([directory], held_out=False)
    for make in (
        lambda rng: random_scene(rng, portraits, 96).picture,
        lambda rng: aligned_crop(rng, portraits[0]),
        lambda rng: box_crop(rng, portraits[0]),
        lambda rng: random_background(rng, 50, 70),
    ):
        first, again, other = (make(np.random.default_rng(seed)) for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_damage_of_strength_zero_is_none():
    picture = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    np.testing.assert_array_equal(degrade(np.random.default_rng(1), picture, 0.0), picture)


def test_damage_keeps_shape_and_content():
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 48, 3))
    changed = 0
    for seed in range(60):
        damaged = degrade(np.random.default_rng(seed), smooth)
        assert damaged.shape == smooth.shape
        assert damaged.dtype == np.uint8
        assert np.corrcoef(damaged.mean((1, 2)), smooth.mean((1, 2)))[0, 1] > 0.6
        changed += not np.array_equal(damaged, smooth)
    assert changed > 55


def test_occlusion_covers_a_part_only():
    for seed in range(20):
        picture = np.zeros((100, 100, 3), np.uint8)
        occlude(np.random.default_rng(seed), picture, np.array([20, 20, 80, 80]))
        covered = (picture[20:80, 20:80].sum(-1) > 0).mean()
        assert covered < 0.7
