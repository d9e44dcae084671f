"""PNG metadata, read back by an independent parser of the file."""

from __future__ import annotations

import io
import struct
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from core.provenance import encode_png, read_settings

SETTINGS = {"prompt": 'image 1 <left> & "image 2" größer', "seed": 7, "faces": None, "strength": 0.5}
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def chunks(png: bytes) -> list[tuple[str, bytes]]:
    """Kinds and contents of a PNG file's chunks, their checksums checked."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + content)
        found.append((kind.decode(), content))
        at += 12 + length
    return found


def test_pixels_and_settings_survive():
    png = encode_png(PICTURE, SETTINGS)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), PICTURE)
    assert read_settings(io.BytesIO(png)) == SETTINGS


def test_the_standard_mark_of_a_generated_picture():
    texts = {
        content.split(b"\0", 1)[0].decode(): content.split(b"\0", 5)[-1].decode("utf-8")
        for kind, content in chunks(encode_png(PICTURE, SETTINGS))
        if kind == "iTXt"
    }
    root = ElementTree.fromstring(texts["XML:com.adobe.xmp"])
    description = root.find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert (
        description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
        == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    )
    text = description.find(".//{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li").text
    assert text == SETTINGS["prompt"]


def test_metadata_stands_before_the_pixels():
    kinds = [kind for kind, _ in chunks(encode_png(PICTURE, SETTINGS))]
    assert max(i for i, kind in enumerate(kinds) if kind == "iTXt") < kinds.index("IDAT")


def test_a_picture_without_settings_has_none():
    plain = io.BytesIO()
    Image.fromarray(PICTURE).save(plain, format="PNG")
    plain.seek(0)
    assert read_settings(plain) is None


def test_settings_that_are_no_json_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        encode_png(PICTURE, {"face_sim": float("nan")})
