"""Reads a picture that anybody may have uploaded into plain RGB, or says why it cannot.

A file is trusted with nothing: its extension is ignored, its size is limited before it is read and its pixels
before they are decoded, only formats with a safe decoder are opened, and a truncated or damaged file is
refused rather than half shown. What comes out are pixels alone: upright, in sRGB, without metadata.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import simplejpeg
from PIL import Image, ImageCms

_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF")
_SAVE_AS = "Save the picture as JPEG, PNG or WebP and upload that file."
_OPEN_ELSEWHERE = "Open it in a picture viewer; if it is damaged there as well, use another copy of the file."
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_UPRIGHT_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112
# What libjpeg says about damaged picture data. Its other warnings are about the header's style.
_JPEG_DAMAGE = re.compile(r"Corrupt JPEG data|Premature end|Inconsistent progression")
# A few cameras pad the end of the data; libjpeg complains, nothing is lost.
_JPEG_PADDING = re.compile(r"Corrupt JPEG data: ([1-9]|1[0-6]) extraneous bytes before marker 0xd9")


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """What is refused before anything is decoded."""

    max_bytes: int = 64_000_000
    """Size of the file."""
    max_pixels: int = 65_000_000
    """Width times height; a 64-megapixel phone picture is just let in."""
    min_side: int = 16
    """Width and height; no face can be found in less."""
    max_aspect: float = 10.0
    """Longer side divided by the shorter one."""


class PictureError(ValueError):
    """A file that cannot be used as a picture.

    Attributes:
        name: the file's name, without its folder.
        reason: why, as the rest of a sentence that begins with the name.
        hint: what the person can do, a sentence.
    """

    def __init__(self, name: str, reason: str, hint: str) -> None:
        super().__init__(name, reason, hint)
        self.name, self.reason, self.hint = name, reason, hint

    def __str__(self) -> str:
        return f"{self.name} {self.reason}. {self.hint}"


def read_picture(
    source: str | os.PathLike[str] | bytes | BinaryIO,
    *,
    name: str | None = None,
    limits: PictureLimits | None = None,
) -> np.ndarray:
    """Pixels of an uploaded picture, uint8 (H, W, 3), RGB, sRGB.

    EXIF orientation is applied; an orientation that does not exist counts as upright. Colours are converted
    with the embedded profile, where there is a usable one. Transparency is laid over white. Animations and
    multi-page files give their first picture. 16-bit grey is scaled to 8 bits, unless no value exceeds 255:
    then it was 8 bits before.

    Args:
        source: a path, a file's content, or a binary file object (read from where it stands).
        name: the name to use in errors; by default that of the path or file object.
        limits: by default `PictureLimits()`.

    Raises:
        PictureError: whenever there is no picture to return.
    """
    limits = limits or PictureLimits()
    name = _display_name(source, name)
    content = _read_limited(source, name, limits)
    _refuse_other_content(content, name)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            _check_size(picture.size, name, limits)
            _refuse_damage(content)
            picture.load()
            return np.array(_to_upright_rgb(picture, name))
    except PictureError:
        raise
    except Image.UnidentifiedImageError as error:
        reason = f"is damaged, or no picture in a known format ({', '.join(_FORMATS)})"
        raise PictureError(name, reason, _SAVE_AS) from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name, "far more pixels than any camera takes", limits) from error
    # Decoders meet hostile bytes here and raise whatever they trip over; to a person it is all the same.
    except Exception as error:
        raise PictureError(name, f"is truncated, damaged or unsafe to open ({error})", _OPEN_ELSEWHERE) from error


def _display_name(source: object, name: str | None) -> str:
    if name is None:
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
    return (Path(name).name if isinstance(name, str) else "") or "The picture"


def _read_limited(source: str | os.PathLike[str] | bytes | BinaryIO, name: str, limits: PictureLimits) -> bytes:
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str | os.PathLike):
        try:
            if not Path(source).is_file():
                raise FileNotFoundError("there is no such file")
            with open(source, "rb") as file:
                content = file.read(limits.max_bytes + 1)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise PictureError(name, f"cannot be opened ({reason})", "Upload the file again.") from error
    else:
        content = source.read(limits.max_bytes + 1)
    if len(content) > limits.max_bytes:
        raise PictureError(
            name,
            f"is larger than {limits.max_bytes / 1e6:g} MB",
            "Save it as JPEG or make it smaller; faces need no more than a few megapixels.",
        )
    return content


def _refuse_other_content(content: bytes, name: str) -> None:
    """Names what is commonly uploaded instead of a picture."""
    start = content[:1024].lstrip().lower()
    if not content:
        raise PictureError(name, "is empty", "The upload or download was probably interrupted; try it again.")
    if start.startswith(b"version https://git-lfs"):
        raise PictureError(name, "is a Git LFS pointer, not the picture itself", "Run `git lfs pull` where it is from.")
    if b"<svg" in start:
        raise PictureError(name, "is a vector drawing (SVG)", "Export it as PNG and upload that file.")
    if start.startswith((b"<!doctype html", b"<html")):
        raise PictureError(name, "is a web page", "Open the picture itself in the browser and save that.")
    if start.startswith(b"%pdf"):
        raise PictureError(name, "is a PDF document", "Export the page as PNG and upload that file.")
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        raise PictureError(
            name,
            "is a HEIC/HEIF picture, which cannot be read here",
            "Save it as JPEG; an iPhone takes JPEG with Settings > Camera > Formats > Most Compatible.",
        )


def _refuse_damage(content: bytes) -> None:
    """Raises ValueError for damage over which Pillow's decoders pass silently."""
    if content.startswith(b"\xff\xd8"):
        # libjpeg fills damaged parts with grey or noise and only warns. At 1/8 size this costs milliseconds.
        try:
            simplejpeg.decode_jpeg(content, colorspace="GRAY", min_height=1, min_width=1, min_factor=8)
        except ValueError as warning:
            if _JPEG_DAMAGE.match(str(warning)) and not _JPEG_PADDING.fullmatch(str(warning)):
                raise
    elif content.startswith(b"\x89PNG"):
        # Pillow decodes without looking at the checksums.
        Image.open(io.BytesIO(content), formats=("PNG",)).verify()


def _check_size(size: tuple[int, int], name: str, limits: PictureLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise _too_many_pixels(name, f"{width} x {height} pixels", limits)
    if min(size) < limits.min_side:
        raise PictureError(
            name,
            f"has {width} x {height} pixels, and each side needs at least {limits.min_side}",
            "Upload a larger picture, in which the face is at least as large as a thumbnail.",
        )
    if max(size) > limits.max_aspect * min(size):
        raise PictureError(
            name,
            f"has {width} x {height} pixels, one side more than {limits.max_aspect:g} times the other",
            "Crop it to the people.",
        )


def _too_many_pixels(name: str, found: str, limits: PictureLimits) -> PictureError:
    return PictureError(
        name,
        f"has {found}; at most {limits.max_pixels / 1e6:g} million are read",
        "Save a smaller copy; faces need no more than a few megapixels.",
    )


def _to_upright_rgb(picture: Image.Image, name: str) -> Image.Image:
    transpose = _UPRIGHT_BY_ORIENTATION.get(_orientation(picture))
    profile = picture.info.get("icc_profile")
    if picture.mode.startswith("I;16"):
        picture = _to_eight_bits(picture)
    elif picture.mode in ("I", "F", "LAB", "HSV"):
        raise PictureError(name, f"stores its pixels in a way that is not read here (mode {picture.mode})", _SAVE_AS)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode in ("P", "1", "YCbCr", "RGBX"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    picture = _to_srgb(picture, profile)
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB")
    return picture.transpose(transpose) if transpose is not None else picture


def _orientation(picture: Image.Image) -> int:
    try:
        return picture.getexif().get(_EXIF_ORIENTATION, 1)
    # The EXIF parser raises anything on a hostile block; like a viewer, take the picture as it is stored.
    except Exception:
        return 1


def _to_eight_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    return Image.fromarray((values if values.max() <= 255 else values // 257).astype(np.uint8))


def _to_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Colours by the embedded profile. A profile that is broken or of another kind of pixels says nothing, so
    that the picture counts as sRGB (CMYK without a profile is converted by the plain formula)."""
    if not profile:
        return picture
    output_mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    try:
        return ImageCms.profileToProfile(
            picture, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode=output_mode
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
