"""The parsers of MakeHuman's text formats on files written here, and the whole extraction on a made-up checkout."""

import numpy as np
import pytest
from PIL import Image

from trainers.people.extract import SourceMissing, extract, read_mesh, read_proxy, read_target

SQUARE = """# a square and a triangle
v 0 0 0
v 1 0 0
v 1 2 0
v 0 2 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
g left
f 1/1 2/2 3/3 4/4
g right
f 1 2 3
"""

PROXY = """# hat
obj_file hat.obj
x_scale 0 1 2.0
y_scale 0 2 4.0
verts 0
0 1 2 0.5 0.25 0.25 0.1 0.2 0.3
1
0 1 2 0.2 0.3 0.5
2
delete_verts
0 - 3
"""


def test_mesh(tmp_path):
    path = tmp_path / "a.obj"
    path.write_text(SQUARE)
    mesh = read_mesh(path)
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 0]]
    assert mesh.groups["left"] == [[(0, 0), (1, 1), (2, 2), (3, 3)]]
    assert mesh.groups["right"] == [[(0, 0), (1, 0), (2, 0)]]
    assert mesh.triangles()[:, :, 0].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]


def test_target_skips_comments_and_short_lines(tmp_path):
    path = tmp_path / "a.target"
    path.write_text("# copyright\n3 0.5 -1 2\n\n17 0 0 .25\n")
    numbers, offsets = read_target(path)
    assert numbers.tolist() == [3, 17]
    assert offsets.tolist() == [[0.5, -1, 2], [0, 0, 0.25]]


def test_proxy_binds_vertices_and_doubles_them_at_seams(tmp_path):
    (tmp_path / "hat.mhclo").write_text(PROXY)
    (tmp_path / "hat.obj").write_text(SQUARE.replace("f 1 2 3", "f 1/2 2/2 3/3"))
    proxy = read_proxy(tmp_path / "hat.mhclo")
    # vertex 0 has two different uv corners, so five vertices come out of four
    assert len(proxy.corners) == 5
    assert proxy.faces.max() == 4
    first = np.flatnonzero((proxy.corners == [0, 1, 2]).all(1) & (proxy.weights[:, 0] == 0.5))
    assert len(first) == 2
    assert proxy.offsets[first].tolist() == [[0.1, 0.2, 0.3]] * 2
    assert sorted(proxy.uv[first].tolist()) == [[0, 0], [1, 0]]
    single = (proxy.corners == [1, 1, 1]).all(1)
    assert proxy.weights[single].tolist() == [[1, 0, 0]]
    assert proxy.scale == {"x": (0, 1, 2.0), "y": (0, 2, 4.0)}


def test_a_file_that_is_no_proxy_is_named(tmp_path):
    (tmp_path / "hat.mhclo").write_text("verts 0\n1\n")
    with pytest.raises(ValueError, match=r"hat\.mhclo names no obj_file"):
        read_proxy(tmp_path / "hat.mhclo")


def test_extraction_of_a_made_up_checkout(tmp_path):
    makehuman, assets, mpfb = _checkouts(tmp_path)
    arrays = extract(makehuman, assets, mpfb)
    # body vertices 0..3 lie high enough, 4 does not; 4 is dropped with the triangle that needs it
    assert arrays["orig"][:4].tolist() == [0, 1, 2, 3]
    assert 4 not in arrays["orig"]
    body = list(arrays["partnames"]).index("body")
    assert arrays["tri"][arrays["part"] == body].tolist() == [[0, 1, 2], [0, 2, 3]]
    assert arrays["macro_names"].tolist() == ["caucasian-female-young"]
    assert arrays["macro"].shape == (1, len(arrays["V"]), 3)
    assert arrays["macro"][0, 2].tolist() == [0, 1, 0]
    # the tiny second offset and the target that moves a dropped vertex only are left out
    assert arrays["det_names"].tolist() == ["nose/nose-hump-incr", "expr/asian/mouth-open"]
    assert arrays["det_ptr"].tolist() == [0, 1, 2]
    assert arrays["det_d"].astype(float).tolist() == [[0.5, 0, 0], [0, -0.25, 0]]
    assert arrays["J_head"].tolist() == [0, 1]
    assert arrays["mask_lips"][0] < 0.1 < 0.9 < arrays["mask_lips"][1]
    assert arrays["prox_names"].tolist() == ["hat"]
    assert arrays["P_hat_s"].tolist() == [[0, 1, 2], [0, 2, 4], [0, 0, 0]]


def test_a_missing_checkout_is_named(tmp_path):
    with pytest.raises(SourceMissing, match=r"base\.obj is not there: give the folder of the checkout"):
        extract(tmp_path, tmp_path, tmp_path)


def _checkouts(root):
    makehuman, assets, mpfb = (root / name for name in ("makehuman", "assets", "mpfb"))
    data = makehuman / "makehuman" / "data"
    for folder in ("3dobjs", "targets/macrodetails", "targets/nose", "targets/expression/units/asian"):
        (data / folder).mkdir(parents=True)
    points = np.zeros((19158, 3))
    points[:4] = [[0, 2, 0], [1, 2, 0], [1, 4, 0], [0, 4, 0]]
    lines = [f"v {x} {y} {z}" for x, y, z in points]
    lines += ["vt 0.1 0.5", "vt 0.9 0.5", "g body", "f 1/1 2/2 3/2 4/1", "f 1/1 2/2 5/2", "g joint-head", "f 1/1 2/1"]
    (data / "3dobjs/base.obj").write_text("\n".join(lines))
    (data / "targets/macrodetails/caucasian-female-young.target").write_text("2 0 1 0\n")
    (data / "targets/nose/nose-hump-incr.target").write_text("1 .5 0 0\n2 .00001 0 0\n")
    (data / "targets/nose/nose-low.target").write_text("4 1 1 1\n")
    (data / "targets/expression/units/asian/mouth-open.target").write_text("3 0 -.25 0\n")
    (assets / "base/hair/hat").mkdir(parents=True)
    (assets / "base/hair/hat/hat.mhclo").write_text(PROXY)
    (assets / "base/hair/hat/hat.obj").write_text(SQUARE)
    textures = mpfb / "src/mpfb/data/textures"
    textures.mkdir(parents=True)
    half = np.zeros((8, 64), np.uint8)
    half[:, 32:] = 255
    for name in ("lips", "ears", "eyelids", "inside-mouth", "face"):
        Image.fromarray(half).save(textures / f"mpfb_{name}.jpg")
    return makehuman, assets, mpfb
