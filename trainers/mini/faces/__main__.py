"""Command line of the face pack's training: render, train, export, measure."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from core.faces import FaceAnalyzer, default_pack
from trainers.mini.faces.attributes import Attributes, train_attributes
from trainers.mini.faces.calibrate import calibrate
from trainers.mini.faces.checkpoint import PRECISIONS, TrainingConfig, load_average
from trainers.mini.faces.detector import Detector, train_detector
from trainers.mini.faces.export import Calibration, export_pack
from trainers.mini.faces.measure import (
    as_table,
    measure_people,
    measure_photographs,
    measure_scenes,
    measure_speed,
)
from trainers.mini.faces.portraits import PortraitSet
from trainers.mini.faces.recogniser import Recogniser, train_recogniser

# Samples, batch and peak learning rate for one CPU core; the README of assets/faces says what made that pack.
RECIPES = {
    "detector": (train_detector, 80_000, 32, 3e-3),
    "recogniser": (train_recogniser, 100_000, 64, 2e-3),
    "attributes": (train_attributes, 40_000, 64, 2e-3),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m trainers.mini.faces", description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    subcommands = parser.add_subparsers(dest="command", required=True)

    render = subcommands.add_parser("render", help="render people and cut them out; goes on where it was stopped")
    render.add_argument("--out", type=Path, required=True)
    render.add_argument("--people", type=int, default=10_000)
    render.add_argument("--first", type=int, default=0, help="number of the first person")
    render.add_argument("--pictures", type=int, default=8, help="of each person, at all ages")
    render.add_argument("--size", type=int, default=144, help="side of a portrait in pixels")
    render.add_argument("--device", default="cpu")

    gather = subcommands.add_parser("gather", help="take the cut-outs of `python -m trainers.mini.render` instead")
    gather.add_argument("--cutouts", type=Path, required=True)
    gather.add_argument("--out", type=Path, required=True)

    train = subcommands.add_parser("train", help="train one model; goes on from its checkpoint")
    train.add_argument("model", choices=sorted(RECIPES))
    train.add_argument("--data", nargs="+", required=True, help="directories of rendered portraits")
    train.add_argument("--out", type=Path, required=True, help="checkpoint file")
    train.add_argument("--samples", type=int, help="pictures to train on in all")
    train.add_argument("--batch", type=int)
    train.add_argument("--learning-rate", type=float)
    train.add_argument("--start-from", type=Path, help="checkpoint whose averaged weights a new run begins with")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    train.add_argument("--device", default="cpu")
    train.add_argument("--precision", choices=PRECISIONS, default="float32", help="bfloat16: faster with AMX or a GPU")

    export = subcommands.add_parser("export", help="write the pack")
    export.add_argument(
        "--checkpoints",
        type=Path,
        required=True,
        help="folder of detector.pt, recogniser.pt and perhaps attributes.pt",
    )
    export.add_argument("--data", nargs="+", required=True, help="portraits; the held-out people set the thresholds")
    export.add_argument("--out", type=Path, default=default_pack())
    export.add_argument("--scenes", type=int, default=200, help="composed pictures the thresholds are set on")

    measure = subcommands.add_parser("measure", help="measure packs on held-out people and photographs")
    measure.add_argument("--pack", nargs="+", default=[str(default_pack())], help="packs to put side by side")
    measure.add_argument("--data", nargs="+", required=True)
    measure.add_argument("--photographs", type=Path, help="folder with ids/PERSON/* and groups/*")
    measure.add_argument("--reference", help="pack whose faces count as the truth on photographs")
    measure.add_argument("--scenes", type=int, default=300)
    measure.add_argument("--portraits", type=int, default=1000)
    measure.add_argument("--out", type=Path, help="JSON file for the numbers")

    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    commands = {"render": _render, "gather": _gather, "train": _train, "export": _export, "measure": _measure}
    commands[options.command](options)


def _render(options: argparse.Namespace) -> None:
    from trainers.mini.faces.render import (
        render_people,  # the renderer and its mesh are needed for nothing else
    )

    render_people(
        options.out,
        first=options.first,
        people=options.people,
        pictures=options.pictures,
        size=options.size,
        device=options.device,
    )


def _gather(options: argparse.Namespace) -> None:
    from trainers.mini.faces.cutouts import gather_portraits

    gather_portraits(options.cutouts, options.out)


def _train(options: argparse.Namespace) -> None:
    function, samples, batch, learning_rate = RECIPES[options.model]
    config = TrainingConfig(
        data=tuple(options.data),
        out=options.out,
        samples=options.samples or samples,
        batch=options.batch or batch,
        learning_rate=options.learning_rate or learning_rate,
        start_from=None if options.start_from is None else str(options.start_from),
        seed=options.seed,
        save_every=options.save_every,
        device=options.device,
        precision=options.precision,
    )
    function(config)


def _export(options: argparse.Namespace) -> None:
    models = [
        load_average(options.checkpoints / f"{name}.pt", model)
        for name, model in (("detector", Detector()), ("recogniser", Recogniser()))
    ]
    attributes = options.checkpoints / "attributes.pt"
    models.append(load_average(attributes, Attributes()) if attributes.is_file() else None)
    export_pack(options.out, *models, Calibration())
    calibration = calibrate(options.out, PortraitSet.open(options.data, held_out=True), scenes=options.scenes)
    export_pack(options.out, *models, calibration)
    print(f"{options.out}: {calibration}")


def _measure(options: argparse.Namespace) -> None:
    portraits = PortraitSet.open(options.data, held_out=True)
    reference = None if options.reference is None else FaceAnalyzer(options.reference, threads=options.threads)
    columns = {}
    for pack in options.pack:
        analyzer = FaceAnalyzer(pack, threads=options.threads)
        columns[analyzer.name] = [
            *measure_scenes(analyzer, portraits, count=options.scenes),
            *measure_people(analyzer, portraits, limit=options.portraits),
            *(measure_photographs(analyzer, options.photographs, reference) if options.photographs else ()),
            *measure_speed(analyzer, portraits),
        ]
    print(as_table(columns))
    if options.out is not None:
        numbers = {name: [asdict(item) for item in column] for name, column in columns.items()}
        options.out.write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
