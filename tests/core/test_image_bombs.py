"""Small files that a careless reader would turn into gigabytes, read in a process of their own to see its memory."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image

from tests.core.picture_files import HEIGHT, WIDTH, encode, png_chunk, png_header, scene


def deflated_zeros(megabytes: int) -> bytes:
    deflate = zlib.compressobj(9)
    return b"".join(deflate.compress(bytes(1_000_000)) for _ in range(megabytes)) + deflate.flush()


def patched(content: bytes, old: bytes, new: bytes) -> bytes:
    assert content.count(old) >= 1
    return content.replace(old, new, 1)


def bombs() -> dict[str, bytes]:
    zeros = deflated_zeros(300)
    header, rest = encode(scene())[:33], encode(scene())[33:]
    bilevel_rows = deflated_zeros(113)
    jpeg_size = struct.pack(">HH", HEIGHT, WIDTH)
    canvas = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    animated = encode(scene(), "WEBP", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    tiff = encode(scene(), "TIFF", compression="tiff_deflate")
    return {
        "pixels.png": png_header(30_000, 30_000, depth=1, colour=0)
        + png_chunk(b"IDAT", bilevel_rows)
        + png_chunk(b"IEND", b""),
        "header.png": png_header(100_000, 100_000) + png_chunk(b"IDAT", b""),
        "ztxt.png": header + png_chunk(b"zTXt", b"Comment\0\0" + zeros) + rest,
        "itxt.png": header + png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros) + rest,
        "iccp.png": header + png_chunk(b"iCCP", b"profile\0\0" + zeros) + rest,
        "size.jpg": patched(encode(scene(), "JPEG"), jpeg_size, b"\xff\xdc" * 2),
        "progressive.jpg": patched(encode(scene(), "JPEG", progressive=True), jpeg_size, b"\xff\xdc" * 2),
        "canvas.webp": patched(animated, canvas, b"\xfe\x3f\0" * 2),
        "screen.gif": patched(encode(scene(), "GIF"), struct.pack("<HH", WIDTH, HEIGHT), b"\xff" * 4),
        "size.bmp": patched(
            encode(scene(), "BMP"), struct.pack("<II", WIDTH, HEIGHT), struct.pack("<II", 60_000, 60_000)
        ),
        "size.tiff": patched(
            tiff, struct.pack("<HHIHH", 257, 3, 1, HEIGHT, 0), struct.pack("<HHII", 257, 4, 1, 4_000_000_000)
        ),
    }


MEASURE = r"""
import re, sys
from pathlib import Path
from core.images import PictureError, read_picture
read_picture(sys.argv[1])
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
for path in sys.argv[2:]:
    try:
        shape = read_picture(path).shape
        print(f"{Path(path).name}\tread\t{shape}")
    except PictureError as error:
        print(f"{Path(path).name}\trefused\t{error.reason}")
print(f"grown\t{peak() - before}\tMB")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_bombs_are_refused_in_little_memory(tmp_path: Path):
    (tmp_path / "scene.png").write_bytes(encode(scene()))
    paths = []
    files = bombs()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        paths.append(str(tmp_path / name))
        assert len(content) < 2_000_000
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "scene.png"), *paths],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    *lines, (_, grown, _) = (line.split("\t") for line in result.stdout.splitlines())
    outcome = {name: (verdict, reason) for name, verdict, reason in lines}
    assert outcome.keys() == files.keys()
    assert {name for name, (verdict, _) in outcome.items() if verdict != "refused"} == set()
    assert {name for name, (_, reason) in outcome.items() if "pixels" in reason} == {
        *(
            "pixels.png",
            "header.png",
            "size.jpg",
            "progressive.jpg",
            "canvas.webp",
            "screen.gif",
            "size.bmp",
            "size.tiff",
        )
    }
    assert int(grown) < 200
