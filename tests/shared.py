"""Where the photographs and face models for checks lie; they are never part of the repository."""

import os
from pathlib import Path

SHARED = Path(os.environ.get("IDGLOW_SHARED", Path(__file__).resolve().parents[2] / "shared"))
