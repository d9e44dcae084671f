"""What becomes of each of the awkward files that lie beside the repository."""

from __future__ import annotations

import numpy as np
import pytest

from core.images import PictureError, read_picture
from tests.shared import SHARED

FOLDER = SHARED / "real" / "awkward"
pytestmark = [
    pytest.mark.shared,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the awkward pictures are not at {FOLDER}"),
]

# Copies of one portrait, and how far their pixels may lie from it on average (0 to 255).
PORTRAIT = {
    "portrait.bmp": 0.0,
    "mislabelled_png.jpg": 0.0,
    "portrait.tiff": 0.0,
    "mislabelled_jpg.png": 4.0,
    "name with spaces ünïcode 人.jpg": 4.0,
    "icc_srgb.jpg": 4.0,
    "progressive.jpg": 4.0,
    "portrait.webp": 4.0,
    "portrait.avif": 4.0,
    "cmyk.jpg": 4.0,
    "palette_P.png": 8.0,
    "palette_trns.png": 8.0,
    "exif_orientation_2.jpg": 4.0,
    "exif_orientation_3.jpg": 4.0,
    "exif_orientation_4.jpg": 4.0,
    "exif_orientation_5.jpg": 4.0,
    "exif_orientation_6.jpg": 4.0,
    "exif_orientation_7.jpg": 4.0,
    "exif_orientation_8.jpg": 4.0,
    "exif_orientation_99_invalid.jpg": 4.0,
    "blurred.jpg": 40.0,
}
# The same portrait in grey.
GREY = {
    "gray_L.jpg": 4.0,
    "gray_16bit.png": 2.0,
    "gray_16bit_full.png": 2.0,
    "gray_alpha_LA.png": 2.0,
    "bilevel_1.png": 80.0,
}
# Read as they are: (height, width) and the mean colour.
OTHERS = {
    "animated.gif": ((200, 200), (94, 71, 74)),
    "animated.webp": ((200, 200), (95, 71, 74)),
    "animated_apng.png": ((200, 200), (95, 71, 74)),
    "multi.tiff": ((100, 100), (95, 71, 74)),
    "rgba_cutout.png": ((1137, 910), (186, 180, 182)),
    "sideways_no_exif.jpg": ((910, 1137), (95, 71, 74)),
    "upside_down.jpg": ((1137, 910), (95, 71, 74)),
    "dark.jpg": ((1137, 910), (5, 3, 3)),
    "tight_crop.jpg": ((626, 364), (124, 106, 104)),
    "tiny_48px.jpg": ((59, 48), (94, 71, 74)),
    "many_faces_54.jpg": ((2658, 3840), (158, 120, 91)),
    "noface_blank.png": ((512, 512), (255, 255, 255)),
    "noface_gradient.jpg": ((480, 640), (126, 126, 128)),
    "noface_noise.png": ((480, 640), (127, 126, 126)),
}
REFUSED = {
    "huge_9000px.jpg": "9000 x 11245 pixels",
    "one_pixel.png": "1 x 1 pixels",
    "sliver_2000x3.png": "2000 x 3 pixels",
    "bomb_30000x30000_1bit.png": "far more pixels",
    "bomb_header_100000x100000.png": "far more pixels",
    "ztxt_bomb.png": "unsafe to open",
    "truncated_50.jpg": "truncated",
    "truncated_100b.jpg": "truncated",
    "corrupt_bytes.jpg": "damaged",
    "empty.jpg": "is empty",
    "text.jpg": "no picture in a known format",
    "html.png": "is a web page",
    "svg_renamed.png": "is a vector drawing",
    "lfs_pointer.jpg": "is a Git LFS pointer",
    "fake_header.heic": "is a HEIC/HEIF picture",
}


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    return read_picture(FOLDER / "portrait.bmp").astype(np.float32)


def test_every_file_has_a_stated_outcome():
    stated = [*PORTRAIT, *GREY, *OTHERS, *REFUSED]
    assert sorted(stated) == sorted(path.name for path in FOLDER.iterdir() if path.name != "SOURCES.md")
    assert len(stated) == 55


@pytest.mark.parametrize(("name", "tolerance"), PORTRAIT.items())
def test_copies_of_the_portrait(name: str, tolerance: float, portrait: np.ndarray):
    picture = read_picture(FOLDER / name)
    assert picture.shape == portrait.shape
    assert np.abs(picture - portrait).mean() <= tolerance


@pytest.mark.parametrize(("name", "tolerance"), GREY.items())
def test_grey_copies_of_the_portrait(name: str, tolerance: float, portrait: np.ndarray):
    picture = read_picture(FOLDER / name)
    assert picture.shape == portrait.shape
    assert (picture[..., 0] == picture[..., 1]).all()
    assert (picture[..., 0] == picture[..., 2]).all()
    luma = portrait @ np.array([0.299, 0.587, 0.114], np.float32)
    assert np.abs(picture[..., 0] - luma).mean() <= tolerance


@pytest.mark.parametrize(("name", "expected"), OTHERS.items())
def test_other_pictures(name: str, expected: tuple):
    (height, width), colour = expected
    picture = read_picture(FOLDER / name)
    assert picture.shape == (height, width, 3)
    assert np.abs(picture.mean(axis=(0, 1)) - colour).max() < 2


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_refused_files(name: str, reason: str):
    with pytest.raises(PictureError) as caught:
        read_picture(FOLDER / name)
    assert reason in caught.value.reason
    assert caught.value.name == name
