"""Every picture here is made by the tests; test_awkward_pictures.py reads the files beside the repository."""

from __future__ import annotations

import io
import pickle
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from core.images import PictureError, PictureLimits, read_picture
from tests.core.picture_files import HEIGHT, WIDTH, encode, png_chunk, png_header, scene

FORMATS = ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF"]
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "BMP": {}}


def assert_refused(content: bytes, reason: str, **options) -> PictureError:
    with pytest.raises(PictureError) as caught:
        read_picture(content, name="upload.jpg", **options)
    error = caught.value
    assert reason in error.reason
    assert error.name == "upload.jpg"
    assert error.hint.endswith(".")
    assert str(error) == f"upload.jpg {error.reason}. {error.hint}"
    return error


# --- pictures that are read ---


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_format_is_read_as_rgb(file_format: str):
    picture = read_picture(encode(scene(), file_format))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    assert np.abs(picture.astype(int) - scene()).mean() < 12


@pytest.mark.parametrize("file_format", LOSSLESS)
def test_lossless_formats_are_read_exactly(file_format: str):
    np.testing.assert_array_equal(read_picture(encode(scene(), file_format, **LOSSLESS[file_format])), scene())


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(file_format: str, orientation: int):
    stored_as = {  # how a camera stores the upright picture when it writes this orientation
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(stored_as[orientation](scene()))
    content = encode(stored, file_format, exif=exif, **LOSSLESS[file_format])
    np.testing.assert_array_equal(read_picture(content), scene())


@pytest.mark.parametrize("orientation", [0, 9, 99, 60000])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_picture(encode(scene(), exif=exif)), scene())


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0" * 40])
def test_a_broken_exif_block_does_not_cost_the_picture(exif: bytes):
    assert read_picture(encode(scene(), "JPEG", exif=exif)).shape == (HEIGHT, WIDTH, 3)


def test_a_profile_is_applied_to_the_colours():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp?", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp?", b"gXYZ", 1)
    assert swapped != profile  # the same file now calls green what sRGB calls red
    red = np.zeros((32, 32, 3), np.uint8)
    red[..., 0] = 255
    for file_format, tolerance in (("PNG", 1), ("JPEG", 6), ("TIFF", 1), ("WEBP", 6)):
        assert (
            np.abs(read_picture(encode(red, file_format, icc_profile=swapped))[0, 0] - [0.0, 255, 0]).max() <= tolerance
        )
        assert (
            np.abs(read_picture(encode(red, file_format, icc_profile=profile))[0, 0] - [255.0, 0, 0]).max() <= tolerance
        )
    half = np.dstack([red, np.full((32, 32), 128, np.uint8)])
    assert np.abs(read_picture(encode(half, icc_profile=swapped))[0, 0] - [127.0, 255, 127]).max() <= 1


@pytest.mark.parametrize("profile", [b"not a profile", b"\0" * 200])
def test_a_profile_that_says_nothing_is_ignored(profile: bytes):
    np.testing.assert_array_equal(read_picture(encode(scene(), icc_profile=profile)), scene())


def test_a_profile_of_other_pixels_is_ignored():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = Image.fromarray(scene()).convert("L")
    np.testing.assert_array_equal(read_picture(encode(grey, icc_profile=profile))[..., 0], np.asarray(grey))


def test_cmyk():
    white, black = (np.full((32, 32, 4), ink, np.uint8) for ink in ([0, 0, 0, 0], [0, 0, 0, 255]))
    for ink, value in ((white, 255), (black, 0)):
        for file_format in ("JPEG", "TIFF"):
            picture = read_picture(encode(Image.fromarray(ink, "CMYK"), file_format))
            assert np.abs(picture.astype(int) - value).max() <= 2


def test_grey_bilevel_and_palette():
    grey = np.asarray(Image.fromarray(scene()).convert("L"))
    np.testing.assert_array_equal(read_picture(encode(grey)), np.dstack([grey] * 3))
    bilevel = Image.fromarray(scene()).convert("1")
    np.testing.assert_array_equal(read_picture(encode(bilevel))[..., 1], np.asarray(bilevel) * 255)
    palette = Image.fromarray(scene()).quantize(16)
    np.testing.assert_array_equal(read_picture(encode(palette)), np.asarray(palette.convert("RGB")))


def test_transparency_is_laid_over_white():
    red = [200, 0, 0]
    half = np.tile(np.array([*red, 128], np.uint8), (32, 32, 1))
    expected = np.array(red) * 128 / 255 + 255 * 127 / 255
    assert np.abs(read_picture(encode(half))[0, 0] - expected).max() <= 1
    clear = half.copy()
    clear[..., 3] = 0
    for file_format in ("PNG", "WEBP", "TIFF", "AVIF"):
        assert (read_picture(encode(clear, file_format)) == 255).all()
    grey_alpha = Image.fromarray(np.tile(np.array([10, 0], np.uint8), (32, 32, 1)), "LA")
    assert (read_picture(encode(grey_alpha)) == 255).all()


def test_a_transparent_palette_entry_is_white():
    palette = Image.new("P", (32, 32))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.paste(1, (16, 0, 32, 32))
    for file_format in ("PNG", "GIF"):
        picture = read_picture(encode(palette, file_format, transparency=0))
        assert picture[0, 0].tolist() == [255, 255, 255]
        assert picture[0, 31].tolist() == [0, 0, 255]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey(file_format: str):
    ramp = np.linspace(0, 65535, 32 * 64).reshape(32, 64).astype(np.uint16)
    np.testing.assert_array_equal(read_picture(encode(ramp, file_format))[..., 2], ramp // 257)
    eight_bits = (ramp // 257).astype(np.uint16)
    np.testing.assert_array_equal(read_picture(encode(eight_bits, file_format))[..., 2], eight_bits)


def test_sixteen_bit_colour():
    values = np.repeat(scene().astype(">u2") * 257, 1, axis=0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    content = png_header(WIDTH, HEIGHT, depth=16) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    np.testing.assert_array_equal(read_picture(content), scene())


@pytest.mark.parametrize(
    ("file_format", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})]
)
def test_the_first_frame_of_several(file_format: str, options: dict):
    first = Image.new("RGB", (40, 30), (200, 30, 30))
    others = [Image.new("RGB", (40, 30), (30, 30, 200)), Image.new("RGB", (40, 30), (30, 200, 30))]
    picture = read_picture(encode(first, file_format, save_all=True, append_images=others, **options))
    assert picture.shape == (30, 40, 3)
    assert (picture == [200, 30, 30]).all()


def test_a_path_a_file_object_and_bytes_are_the_same(tmp_path: Path):
    path = tmp_path / "name with spaces ünïcode 人.jpg"  # and PNG inside
    path.write_bytes(encode(scene()))
    with path.open("rb") as file:
        for source in (path, str(path), path.read_bytes(), file, io.BytesIO(path.read_bytes())):
            np.testing.assert_array_equal(read_picture(source), scene())


# --- files that are refused ---


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"hello, world\n", "no picture in a known format"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"  <html><img src='x.png'></html>", "is a web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "vector drawing"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 9\n", "Git LFS pointer"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 99, "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic" + b"\0" * 99, "HEIC"),
        (b"\xff\xd8\xff\xe0", "damaged"),
        (random.Random(0).randbytes(5000), "no picture in a known format"),
        # PostScript is run by a separate program to be drawn, which is why it is not among the formats.
        (
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\nshowpage\n%%EOF\n",
            "no picture in a known format",
        ),
    ],
)
def test_other_content_is_refused_by_its_name(content: bytes, reason: str):
    assert_refused(content, reason)


def test_the_hint_for_an_iphone_picture_says_how_to_get_a_jpeg():
    assert "JPEG" in assert_refused(b"\0\0\0\x18ftypheix" + b"\0" * 30, "HEIC").hint


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_truncated_file_is_never_half_shown(file_format: str):
    content = encode(scene(), file_format)
    whole = read_picture(content)
    refused = 0
    for length in [
        *range(0, 60, 7),
        *(len(content) * part // 24 for part in range(2, 24)),
        *(len(content) - n for n in (1, 2, 12)),
    ]:
        try:
            picture = read_picture(content[:length])
        except PictureError:
            refused += 1
        else:
            # what was cut off held no pixels, such as the end marker
            np.testing.assert_array_equal(picture, whole)
            assert length >= len(content) - 12
    assert refused >= 31


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
def test_damaged_jpeg_data_is_refused(options: dict):
    content = bytearray(encode(scene(), "JPEG", quality=95, **options))
    generator = random.Random(1)
    for _ in range(40):
        content[generator.randrange(len(content) // 2, len(content) - 2)] ^= 1 << generator.randrange(8)
    assert_refused(bytes(content), "damaged")


def test_padding_before_the_end_of_a_jpeg_is_no_damage():
    content = encode(scene(), "JPEG")
    assert content.endswith(b"\xff\xd9")
    padded = content[:-2] + b"\0\0" + content[-2:]
    np.testing.assert_array_equal(read_picture(padded), read_picture(content))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_one_flipped_bit_in_a_png_is_refused(part: float):
    content = bytearray(encode(scene()))
    content[int(len(content) * part)] ^= 4
    assert_refused(bytes(content), "damaged")


def test_pixels_are_limited_before_decoding():
    content = encode(scene())
    assert_refused(content, f"{WIDTH} x {HEIGHT} pixels", limits=PictureLimits(max_pixels=WIDTH * HEIGHT - 1))
    assert read_picture(content, limits=PictureLimits(max_pixels=WIDTH * HEIGHT)).shape == (HEIGHT, WIDTH, 3)
    assert_refused(png_header(12_000, 6_000) + png_chunk(b"IDAT", b""), "12000 x 6000 pixels")


def test_small_and_long_pictures_are_refused():
    assert_refused(encode(np.zeros((1, 1, 3), np.uint8)), "1 x 1 pixels")
    assert_refused(encode(np.zeros((15, 40, 3), np.uint8)), "at least 16")
    assert_refused(encode(np.zeros((16, 161, 3), np.uint8)), "more than 10 times")
    assert read_picture(encode(np.zeros((16, 160, 3), np.uint8))).shape == (16, 160, 3)


def test_bytes_are_limited_without_reading_the_rest(tmp_path: Path):
    limits = PictureLimits(max_bytes=1000)
    endless = open("/dev/zero", "rb")  # noqa: SIM115
    with endless, pytest.raises(PictureError, match="larger than"):
        read_picture(endless, limits=limits)
    path = tmp_path / "large.bmp"
    path.write_bytes(encode(scene(), "BMP"))
    with pytest.raises(PictureError, match=r"large\.bmp is larger than 0\.001 MB"):
        read_picture(path, limits=limits)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int32(7)])
def test_pixels_that_are_no_colours_are_refused(value: np.generic):
    assert_refused(encode(np.full((32, 32), value), "TIFF"), "stores its pixels")


@pytest.mark.parametrize("path", ["missing.jpg", "", "a\0b.jpg"])
def test_a_path_without_a_file_is_refused(tmp_path: Path, path: str):
    with pytest.raises(PictureError, match="cannot be opened"):
        read_picture(f"{tmp_path}/{path}")


def test_the_error_names_the_file_without_its_folder(tmp_path: Path):
    path = tmp_path / "private" / "holiday.png"
    path.parent.mkdir()
    path.write_bytes(b"no")
    for source, name in ((path, None), (b"no", "../private/holiday.png"), (path.open("rb"), None)):
        with pytest.raises(PictureError) as caught:
            read_picture(source, name=name)
        assert caught.value.name == "holiday.png"
        assert "private" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
