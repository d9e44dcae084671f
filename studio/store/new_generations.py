"""What callers hand to `store.generations`: a run to queue, the pictures it made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.store.models import PromptOrigin, Purpose, Task


@dataclass(frozen=True, kw_only=True)
class NewGeneration:
    """Everything needed to run, and later to repeat, one generation."""

    task: Task | str
    prompt: str
    schedule: str
    """`str(IdentitySchedule)`."""
    strength: float
    steps: int
    guidance: float
    """Scale of guidance towards the prompt; 1 is none."""
    identity_guidance: float
    """Scale of guidance towards the portraits; 1 is none."""
    width: int
    height: int
    seeds: Sequence[int]
    bundle: str
    bundle_revision: str = ""
    portrait_ids: Sequence[str] = ()
    """In the order the prompt counts them: `image 1` first."""
    target_ages: Sequence[int | None] = ()
    """One for each portrait, or empty."""
    scene_words: str = ""
    prompt_origin: PromptOrigin | str = PromptOrigin.TEMPLATE
    adapter_id: str | None = None
    adapter_scale: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)
    ab_group: str | None = None
    """One `new_id()` for the generations of an A/B run."""
    ab_side: str | None = None
    purpose: Purpose | str = Purpose.STUDIO
    round_id: str | None = None
    """The training round that the pictures are made for."""
    author_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewCandidate:
    """A finished picture; `media_sha256` comes from `store.media.add`."""

    position: int
    seed: int
    media_sha256: str
    width: int
    height: int
    face_report: dict[str, Any] | None = None
    """FaceReport as JSON with the face pack's name; None where nothing was measured."""
    face_sim: float | None = None
    coverage: float | None = None
    aesthetic: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
