"""Looks at the pairs that the picks of a data folder make, and writes them out for training.

    python -m trainers.pairs --data DIR --bundle mini --preview sheet.png [--generated 50] [--perturbed 50]
    python -m trainers.pairs --data DIR --bundle mini --out PAIRS [--rendered DIR] [--real DIR] [--groups 100]

`--preview` prints what is kept and what is dropped for which reason and draws a contact sheet; nothing is stored.
`--out` writes the kept pairs for `python -m trainers.dpo --pairs PAIRS`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from core.backbones.bundles import load_bundle
from core.backbones.cards import BundleError, find_card
from core.clip import installed_clip
from core.faces import FaceAnalyzer, FacePackError, default_pack
from studio.store import Store, StoreError
from trainers.pairs.collect import PairConfig, draft_pairs, training_pair
from trainers.pairs.groups import JudgedPair, group_pairs, real_groups, rendered_groups
from trainers.pairs.measuring import Gallery
from trainers.pairs.sheet import SheetRow, save_sheet
from trainers.training_pairs import write_pairs


def main() -> None:
    options = _parser().parse_args()
    if options.preview is None and options.out is None:
        raise SystemExit("error: nothing to do; give --preview SHEET, --out DIR, or both.")
    torch.set_num_threads(options.threads)
    try:
        pairs = list(_pairs(options))
        _report(pairs)
        if options.preview is not None:
            _draw(options.preview, pairs, options.rows)
        if options.out is not None:
            count = write_pairs(options.out, [judged.pair for judged in pairs if not judged.drop_reason])
            print(f"{count} pairs written to {options.out}")
    except (BundleError, OSError, StoreError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainers.pairs", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="data folder of the studio")
    parser.add_argument("--database-url", help="of the studio, where it is not in the data folder")
    parser.add_argument("--bundle", default="mini", help="name, or a diffusers folder")
    parser.add_argument("--face-pack", type=Path, help="folder of an InsightFace pack; the application's own if absent")
    parser.add_argument("--preview", type=Path, metavar="SHEET", help="picture file for a contact sheet")
    parser.add_argument("--rows", type=int, default=40, help="most rows of the sheet")
    parser.add_argument("--out", type=Path, help="folder for the kept pairs")
    parser.add_argument("--generated", type=int, default=0, help="most pairs of pictures that nobody compared")
    parser.add_argument("--perturbed", type=int, default=0, help="most pairs with a spoilt copy")
    parser.add_argument("--rendered", type=Path, help="data set of trainers.people.dataset")
    parser.add_argument("--real", type=Path, help="folder with groups.jsonl")
    parser.add_argument("--groups", type=int, default=50, help="most pictures of --rendered and of --real")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    return parser


def _pairs(options: argparse.Namespace) -> Iterator[JudgedPair]:
    config = PairConfig(generated=options.generated, perturbed=options.perturbed, seed=options.seed)
    analyzer = _analyzer(options)
    card = find_card(options.bundle)
    if options.data is not None:
        if not options.data.is_dir():
            raise ValueError(f"There is no data folder {options.data}.")
        store = Store.open(options.data, database_url=options.database_url)
        gallery = Gallery(store, analyzer, None)
        for number, draft in enumerate(draft_pairs(store, card.name, analyzer=analyzer, config=config)):
            try:
                pair = training_pair(draft, number, gallery, card.reference_side)
            except (StoreError, ValueError):  # dropped for it: a file is gone, or the sizes differ
                pair = None
            yield JudgedPair(pair=pair, origin=draft.origin, deltas=draft.deltas, drop_reason=draft.drop_reason)
        store.close()
    sources = [("rendered", options.rendered, rendered_groups), ("real", options.real, real_groups)]
    sources = [source for source in sources if source[1] is not None]
    if sources:
        bundle, clip = load_bundle(options.bundle, device=options.device), installed_clip()
        for origin, folder, read in sources:
            yield from group_pairs(
                read(folder),
                bundle,
                origin=origin,
                analyzer=analyzer,
                clip=clip,
                thresholds=config.thresholds,
                limit=options.groups,
                seed=options.seed,
            )


def _analyzer(options: argparse.Namespace) -> FaceAnalyzer | None:
    try:
        return FaceAnalyzer(options.face_pack or default_pack(), threads=options.threads)
    except FacePackError as error:
        print(f"note: identity and clothes are not measured: {error}", file=sys.stderr)
        return None


def _report(pairs: Sequence[JudgedPair]) -> None:
    kept = Counter(pair.origin for pair in pairs if not pair.drop_reason)
    dropped = Counter((pair.origin, pair.drop_reason) for pair in pairs if pair.drop_reason)
    print(f"{len(pairs)} pairs, {kept.total()} kept, {dropped.total()} dropped")
    for origin, count in kept.most_common():
        print(f"  kept     {count:5d}  {origin}")
    for (origin, reason), count in dropped.most_common():
        print(f"  dropped  {count:5d}  {origin}: {reason}")


def _draw(path: Path, pairs: Sequence[JudgedPair], rows: int) -> None:
    shown = [judged for judged in pairs if judged.pair is not None][:rows]
    save_sheet(
        path,
        [
            SheetRow(
                pictures=(*judged.pair.references, judged.pair.chosen, judged.pair.rejected),
                lines=[
                    judged.pair.id,
                    judged.drop_reason or "kept",
                    *(f"{name} {delta:+.3f}" for name, delta in judged.deltas.items()),
                ],
                kept=not judged.drop_reason,
            )
            for judged in shown
        ],
    )
    print(f"{len(shown)} of them in {path}: references, chosen, rejected")


if __name__ == "__main__":
    main()
