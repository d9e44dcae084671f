"""From the studio's store to pairs: what people picked, what metrics tell apart, what was spoilt on purpose."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import combinations, cycle

import numpy as np

from core.backbones.bundles import Bundle
from core.clip import installed_clip
from core.faces import FaceAnalyzer
from core.metrics import METRICS, differences
from core.provenance import encode_png
from studio.store import NewRoundPair, Store, StoreError
from studio.store.models import Candidate, Generation, Outcome, Pick, Purpose, RoundPair
from trainers.pairs.filter import Vote, objection, settle
from trainers.pairs.measuring import Gallery
from trainers.pairs.perturb import KINDS, Stranger, perturb
from trainers.training_pairs import TrainingPair

LATEST = 200
"""Generations that are searched for pairs nobody compared."""


@dataclass(frozen=True, kw_only=True)
class PairConfig:
    """Which pairs are made, and what the filter asks of them."""

    thresholds: Mapping[str, float] = field(
        default_factory=lambda: {"identity": 0.05, "object": 0.1, "semantic": 0.02, "aesthetic": 0.25}
    )
    """tau_k of eq. 8 for each metric k of `core.metrics`."""
    generated: int = 0
    """Most pairs of two generated pictures that nobody compared, told apart by the metrics."""
    perturbed: int = 0
    """Most pairs of a picked picture and a spoilt copy of it."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name, threshold in self.thresholds.items():
            if name not in METRICS:
                raise ValueError(f"There is no metric {name!r} to have a threshold; there are {', '.join(METRICS)}.")
            if not threshold >= 0:
                raise ValueError(f"The threshold of {name} is {threshold!r}, but must be a number of at least 0.")
        for name in ("generated", "perturbed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, but must be at least 0.")


@dataclass(frozen=True, kw_only=True, eq=False)
class DraftPair:
    """A pair before it is stored.

    rejected_picture: of a perturbed pair, which is in no store yet; uint8 (H, W, 3). Otherwise `rejected` has it.
    """

    origin: str
    generation: Generation
    """Whose prompt and references condition both sides."""
    chosen: Candidate
    rejected: Candidate | None
    rejected_picture: np.ndarray | None = None
    pick_id: str | None = None
    deltas: Mapping[str, float] = field(default_factory=dict)
    drop_reason: str = ""


def collect_pairs(
    store: Store,
    bundle_name: str,
    *,
    analyzer: FaceAnalyzer | None,
    config: PairConfig | None = None,
    until: datetime | None = None,
    held_out: Collection[str] = (),
    make_room: Callable[[], None] | None = None,
) -> list[NewRoundPair]:
    """All pairs a round looks at, kept ones and dropped ones with their reason, for `store.rounds.save_pairs`.

    Perturbed pictures are added to the store's media.

    Args:
        bundle_name: `BundleCard.name`; only pictures made with it.
        analyzer: None where there is no face pack; what needs faces is absent then.
        until: picks made until then (the round's snapshot); None for all.
        held_out: SHA-256 of portrait files (`Portrait.picture_sha256`) that no round may train on.
        make_room: called before every measurement; may wait while others need the device, or raise.
    """
    drafts = draft_pairs(
        store, bundle_name, analyzer=analyzer, config=config, until=until, held_out=held_out, make_room=make_room
    )
    return [_stored(store, draft) for draft in drafts]


def draft_pairs(
    store: Store,
    bundle_name: str,
    *,
    analyzer: FaceAnalyzer | None,
    config: PairConfig | None = None,
    until: datetime | None = None,
    held_out: Collection[str] = (),
    make_room: Callable[[], None] | None = None,
) -> list[DraftPair]:
    """What `collect_pairs` collects, without writing anything."""
    config = config or PairConfig()
    gallery = Gallery(store, analyzer, installed_clip(), make_room=make_room)
    picks = list(_picks(store, bundle_name, until))
    picked = [_checked(draft, gallery, held_out, thresholds=None) for draft in _from_picks(picks)]
    bad = {c.id for pick in picks if pick.outcome is Outcome.BOTH_BAD for c in pick.comparison.candidates}
    compared = {frozenset((pair.left_id, pair.right_id)) for pick in picks for pair in pick.pairs}
    uncompared = _from_generations(store, bundle_name, compared, bad, gallery, config) if config.generated else []
    generated = [_checked(draft, gallery, held_out, config.thresholds) for draft in uncompared]
    kept = [draft for draft in picked if not draft.drop_reason]
    perturbed = [_checked(draft, gallery, held_out, config.thresholds) for draft in _spoilt(kept, gallery, config)]
    return [*picked, *generated, *perturbed]


def load_training_pairs(
    store: Store,
    pairs: Sequence[RoundPair],
    bundle: Bundle,
    *,
    analyzer: FaceAnalyzer | None,
    make_room: Callable[[], None] | None = None,
) -> list[TrainingPair]:
    """Kept rows of a round as they are trained on, pictures and prepared references in memory.

    `make_room` as for `collect_pairs`.

    Raises:
        StoreError: a picture, portrait or generation is gone; names it.
    """
    gallery = Gallery(store, analyzer, None, make_room=make_room)
    conditions: dict[str, tuple[str, tuple[np.ndarray, ...]]] = {}
    loaded = []
    for pair in pairs:
        if pair.generation_id not in conditions:
            generation = store.generations.get(pair.generation_id)
            conditions[pair.generation_id] = (
                generation.prompt.text,
                _references(generation, gallery, bundle.card.reference_side),
            )
        prompt, references = conditions[pair.generation_id]
        sides = (gallery.picture(sha256) for sha256 in (pair.chosen_sha256, pair.rejected_sha256))
        loaded.append(TrainingPair(pair.id, prompt, references, *sides))
    return loaded


def training_pair(draft: DraftPair, number: int, gallery: Gallery, side: int) -> TrainingPair:
    """A draft as it is trained on, outside of any store; `side` is that of the bundle's references in pixels."""
    rejected = draft.rejected_picture
    return TrainingPair(
        id=f"{draft.origin}-{number:06d}",
        prompt=draft.generation.prompt.text,
        references=_references(draft.generation, gallery, side),
        chosen=gallery.picture(draft.chosen.media_sha256),
        rejected=gallery.picture(draft.rejected.media_sha256) if rejected is None else rejected,
    )


def _references(generation: Generation, gallery: Gallery, side: int) -> tuple[np.ndarray, ...]:
    """The crops as the model reads them when it generates."""
    return tuple(
        gallery.person(reference.portrait, number, side).crop
        for number, reference in enumerate(generation.references, 1)
    )


def _picks(store: Store, bundle_name: str, until: datetime | None) -> Iterator[Pick]:
    after = None
    while page := store.picks.counted(after=after, until=until, bundle=bundle_name):
        yield from page
        after = page[-1].id


def _from_picks(picks: Sequence[Pick]) -> Iterator[DraftPair]:
    """Each pick's pairs; votes on one pair of pictures are settled by `filter.settle`."""
    groups: dict[tuple[str, ...], list[tuple[Vote, DraftPair]]] = {}
    for pick in picks:
        candidates = {candidate.id: candidate for candidate in pick.comparison.candidates}
        for pair in pick.pairs:
            left, right = candidates[pair.left_id], candidates[pair.right_id]
            better, worse = (left, right) if pair.left_score >= 0.5 else (right, left)
            # The same pictures may be in several comparisons, also as files that were made twice.
            files = tuple(sorted((left.media_sha256, right.media_sha256)))
            vote = Vote(
                annotator=pick.annotator_id,
                time=pick.id,
                winner=None if pair.left_score == 0.5 else files.index(better.media_sha256),
                both_bad=pick.outcome is Outcome.BOTH_BAD,
            )
            draft = DraftPair(
                origin="pick",
                generation=better.generation,
                chosen=better,
                rejected=worse,
                pick_id=pick.id,
                drop_reason=_different_conditions(better.generation, worse.generation),
            )
            groups.setdefault(files, []).append((vote, draft))
    for group in groups.values():
        for reason, (_, draft) in zip(settle([vote for vote, _ in group]), group, strict=True):
            yield replace(draft, drop_reason=reason or draft.drop_reason)


def _different_conditions(first: Generation, second: Generation) -> str:
    same_people = [r.portrait_id for r in first.references] == [r.portrait_id for r in second.references]
    same_prompt = first.prompt.text == second.prompt.text
    return "" if same_people and same_prompt else "made for different prompts or portraits"


def _from_generations(
    store: Store,
    bundle_name: str,
    compared: set[frozenset[str]],
    bad: set[str],
    gallery: Gallery,
    config: PairConfig,
) -> Iterator[DraftPair]:
    """Pairs of one generation that nobody compared, the side that the metrics prefer first; at most so many kept."""
    kept = 0
    for generation in store.generations.latest(limit=LATEST):
        if generation.bundle != bundle_name:
            continue
        shown = [candidate for candidate in generation.candidates if candidate.deleted_at is None]
        for pair in combinations(shown, 2):
            if frozenset(candidate.id for candidate in pair) in compared or kept == config.generated:
                continue
            try:
                first, second = (gallery.measures(candidate, generation) for candidate in pair)
            except StoreError:  # a missing file, which becomes the reason to drop the pair
                first = second = {}
            backwards = not objection(differences(second, first), config.thresholds)
            chosen, rejected = reversed(pair) if backwards else pair
            passes = backwards or not objection(differences(first, second), config.thresholds)
            reason = "the side that the metrics prefer was found bad" if passes and chosen.id in bad else ""
            kept += passes and not reason
            yield DraftPair(
                origin="generated", generation=generation, chosen=chosen, rejected=rejected, drop_reason=reason
            )


def _spoilt(kept: Sequence[DraftPair], gallery: Gallery, config: PairConfig) -> Iterator[DraftPair]:
    """Picked pictures against spoilt copies of themselves, in turn one of each kind."""
    rng = np.random.default_rng(config.seed)
    bases = list({draft.chosen.media_sha256: draft.chosen for draft in kept}.values())
    made = fruitless = 0
    for kind in cycle(KINDS):
        if made == config.perturbed or fruitless == len(KINDS) or not bases:
            return
        base = bases[made % len(bases)]
        spoilt = None
        # Where nobody's place was said, nobody can be in the wrong one.
        if kind != "swap" or base.generation.options.get("expected_order") is not None:
            stranger = _stranger(base, bases, gallery) if kind == "wrong-face" else None
            picture = gallery.picture(base.media_sha256)
            spoilt = perturb(picture, kind, rng, faces=gallery.faces(base), stranger=stranger)
        if spoilt is None:
            fruitless += 1
            continue
        made, fruitless = made + 1, 0
        yield DraftPair(
            origin=f"perturbed-{kind}",
            generation=base.generation,
            chosen=base,
            rejected=None,
            rejected_picture=spoilt,
        )


def _stranger(base: Candidate, bases: Sequence[Candidate], gallery: Gallery) -> Stranger | None:
    """Somebody from the portraits of other pictures who is not in this one."""
    present = {reference.portrait.person_id for reference in base.generation.references}
    for other in bases:
        for reference in other.generation.references:
            portrait = reference.portrait
            if portrait.person_id not in present and len(portrait.landmarks) == 5:
                return Stranger(gallery.picture(portrait.picture_sha256), np.array(portrait.landmarks, np.float64))
    return None


def _checked(
    draft: DraftPair, gallery: Gallery, held_out: Collection[str], thresholds: Mapping[str, float] | None
) -> DraftPair:
    """With deltas, and a reason to drop it where there is one; people's picks (thresholds None) pass the metrics."""
    if draft.drop_reason:
        return draft
    reason = _misfit(draft, held_out)
    if reason:
        return replace(draft, drop_reason=reason)
    try:
        chosen = gallery.measures(draft.chosen, draft.generation)
        if draft.rejected is None:
            rejected = gallery.measures_of(draft.rejected_picture, draft.generation)
        else:
            rejected = gallery.measures(draft.rejected, draft.generation)
    except StoreError:
        return replace(draft, drop_reason="a picture's file is missing")
    deltas = differences(chosen, rejected)
    return replace(draft, deltas=deltas, drop_reason="" if thresholds is None else objection(deltas, thresholds))


def _misfit(draft: DraftPair, held_out: Collection[str]) -> str:
    """Why the two sides cannot be compared by a model, whoever prefers what."""
    generation = draft.generation
    held_out_people = any(reference.portrait.picture_sha256 in held_out for reference in generation.references)
    if held_out_people or generation.purpose is Purpose.EVALUATION:
        return "held out for evaluation"
    if draft.rejected is None:
        return ""
    if draft.chosen.media_sha256 == draft.rejected.media_sha256:
        return "both pictures are the same"
    if (draft.chosen.width, draft.chosen.height) != (draft.rejected.width, draft.rejected.height):
        return "pictures of different sizes"
    return ""


def _stored(store: Store, draft: DraftPair) -> NewRoundPair:
    if draft.rejected is None:
        rejected = store.media.add(encode_png(draft.rejected_picture, {"perturbed": draft.origin}), ".png")
    else:
        rejected = draft.rejected.media_sha256
    return NewRoundPair(
        origin=draft.origin,
        pick_id=draft.pick_id,
        generation_id=draft.generation.id,
        chosen_candidate_id=draft.chosen.id,
        rejected_candidate_id=draft.rejected and draft.rejected.id,
        chosen_sha256=draft.chosen.media_sha256,
        rejected_sha256=rejected,
        deltas=dict(draft.deltas),
        kept=not draft.drop_reason,
        drop_reason=draft.drop_reason,
    )
