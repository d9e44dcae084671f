"""PNG files that say how they were made, and that a model made them.

The settings are JSON in an iTXt chunk of our own. The mark is the one that platforms read: IPTC's digital
source type `trainedAlgorithmicMedia` in an XMP packet (IPTC Photo Metadata Standard 2023.1, property
DigitalSourceType).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

SETTINGS_KEY = "idglow"
XMP_KEY = "XML:com.adobe.xmp"
SOFTWARE = "IdGlow Studio"
DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def encode_png(picture: np.ndarray, settings: Mapping[str, Any]) -> bytes:
    """A PNG file of a picture (H, W, 3) uint8 RGB with its settings and the mark.

    Raises:
        ValueError: the settings are no JSON (a NaN is none).
    """
    text = json.dumps(dict(settings), ensure_ascii=False, allow_nan=False)
    info = PngInfo()
    info.add_text("Software", SOFTWARE)
    info.add_itxt(SETTINGS_KEY, text)
    info.add_itxt(XMP_KEY, _xmp(str(settings.get("prompt", ""))))
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def read_settings(file: Path | str | BinaryIO) -> dict[str, Any] | None:
    """The settings that `encode_png` wrote into a file; None if it carries none.

    Raises:
        ValueError: the chunk is there but damaged.
        OSError: the file is no readable picture.
    """
    with Image.open(file) as picture:
        picture.load()
        text = getattr(picture, "text", {}).get(SETTINGS_KEY)
    return None if text is None else json.loads(text)


def _xmp(prompt: str) -> str:
    return f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/"
    Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"
    xmp:CreatorTool="{SOFTWARE}">
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{escape(prompt)}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""
