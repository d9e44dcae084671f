"""The curriculum of the mini transformer: stages, and everything else a training run is set up with."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainers.mini.models import TransformerSize


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of the curriculum. `mix` names what is drawn: "portrait-1", "row-2", "group-3", "child-2", ..."""

    name: str
    steps: int
    mix: tuple[str, ...]
    batch: int = 8
    levels: int = 4
    """Noise levels that share one prefix."""
    copy_share: float = 0.0
    """Share of rows of portrait and row tasks whose target is the reference picture itself: the smallest change."""
    identity_weight: float = 0.0
    """Of the identity loss beside the flow matching loss, on groups and children; above 0 late in the training only,
    when clean estimates show faces."""
    identity_estimates: int = 4
    """Clean estimates of a step that the identity loss looks at."""
    sigma_shift: float | None = None
    """Instead of the run's: words decide at the highest noise levels."""
    face_weight: float | None = None
    """Instead of the run's."""
    clothes_weight: float = 0.0
    """Extra weight of a token below a chin: only the prompt tells what somebody wears, so they teach to read it."""
    reading_weight: float = 0.0
    """Of the loss that makes clothes look at the words that name them, see `trainers.mini.reading_term`."""
    start_reading: bool = False
    """Begin with the least squares answer to what the words mean that clothes look at; once that is learned."""
    refresh: int = 0
    """Steps after which shards finished meanwhile are taken in; 0 keeps to those that were there at first."""
    with_text: bool = True
    """False: prompts are blank, and the VLM need not be trained yet."""

    def __post_init__(self) -> None:
        for kind in self.mix:
            task, _, people = kind.partition("-")
            if task not in ("portrait", "row", "group", "child") or people not in ("1", "2", "3"):
                raise ValueError(f"stage {self.name}: {kind!r} is no task and number of people such as group-2")
        if not self.mix:
            raise ValueError(f"stage {self.name} has an empty mix")


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    stages: tuple[Stage, ...]
    size: TransformerSize = field(default_factory=TransformerSize)
    seed: int = 0
    learning_rate: float = 1e-3
    query_key_rate: float = 0.2
    """Share of the learning rate for queries and keys: where to look is slower to learn than what to make of it."""
    weight_decay: float = 0.01
    warmup: int = 40
    decay_share: float = 0.3
    average_decay: float = 0.995
    gradient_clip: float = 1.0
    sigma_shift: float = 1.0
    """Shift of the logit-normal noise levels; above 1 draws more noise."""
    face_weight: float = 3.0
    """Extra weight of a token that a face covers."""
    prompt_dropout: float = 0.1
    reference_dropout: float = 0.1
    """Share of noise levels at which the target sees no references."""
    look_at_references: bool = True
    """Start some heads looking at the references, see `models.look_at_references`."""
    compiled: bool = False
    """Compile the blocks, which takes minutes and a C++ compiler, and pays in a long run."""
    checkpoint_minutes: float = 3.0
    evaluate_every: int = 200
    evaluated: int = 16
    """Held-out rows behind each gap."""

    @property
    def steps(self) -> int:
        return sum(stage.steps for stage in self.stages)

    def stage_at(self, step: int) -> tuple[int, Stage]:
        """(first step, stage) that `step` belongs to."""
        first = 0
        for stage in self.stages:
            if step < first + stage.steps:
                return first, stage
            first += stage.steps
        raise ValueError(f"step {step} is past the last of {self.steps}")


def parse_kind(kind: str) -> tuple[str, int]:
    """Task and number of people of a kind such as "group-2"."""
    task, _, people = kind.partition("-")
    return task, int(people)
