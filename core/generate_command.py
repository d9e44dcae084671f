"""From portraits and a prompt to PNG files and results.json: the command `python -m core.generate`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import torch
from tqdm import tqdm

from core.adapters import AdapterError
from core.backbones.bundles import load_bundle
from core.backbones.cards import BUNDLES, BundleError
from core.generate import Candidate, GenerationRequest, face_analyzer, generate, people_of
from core.images import read_picture
from core.precision import Precision
from core.prompt_writer import PromptWriter
from core.prompts import Task, refuse_unsafe, static_prompt
from core.provenance import encode_png
from core.sampler import StepReport
from core.schedule import IdentitySchedule


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m core.generate`; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except (AdapterError, BundleError, FloatingPointError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.generate", description="From portraits and a prompt to PNG files."
    )
    parser.add_argument("--bundle", default="mini", help=f"{', '.join(BUNDLES)}, or a diffusers folder")
    parser.add_argument("--portraits", nargs="+", type=Path, required=True, help="one picture of each person")
    parser.add_argument("--task", choices=[task.value for task in Task], default=Task.GROUP.value)
    parser.add_argument("--scene", default="", help='scene words, such as "in a park at sunset"')
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", help="the whole prompt, instead of the task's template")
    prompt.add_argument("--write-prompt", action="store_true", help="let the language model write it")
    parser.add_argument("--negative-prompt", default="")
    parser.add_argument("--guidance", type=float, help="towards the prompt, classifier-free; 1 is none")
    parser.add_argument("--identity-guidance", type=float, help="towards the portraits; 1 is none")
    parser.add_argument("--schedule", type=IdentitySchedule.parse, default=IdentitySchedule.constant())
    parser.add_argument("--strength", type=float, default=1.0, help="of the schedule's effect, 0 to 1")
    parser.add_argument("--no-face-detail", action="store_true", help="do not paint faces again at twice their size")
    parser.add_argument("--seed", type=int, default=0, help="of the first candidate; the others count up")
    parser.add_argument("--candidates", type=int, default=4)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--adapter", type=Path, help="folder of a LoRA adapter")
    parser.add_argument("--adapter-scale", type=float, default=1.0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--precision", choices=get_args(Precision), default="auto", help="on a CPU; auto is the faster one"
    )
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--allow-download", action="store_true", help="fetch hub weights that are not here")
    parser.add_argument("--out", type=Path, required=True, help="folder for PNG files and results.json")
    return parser


def _run(options: argparse.Namespace) -> None:
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    portraits = tuple(read_picture(path) for path in options.portraits)
    refuse_unsafe(options.prompt or options.scene, children=options.task == Task.CHILD)
    bundle = load_bundle(
        options.bundle, device=options.device, precision=options.precision, allow_download=options.allow_download
    )
    if options.adapter is not None:
        bundle.adapters.swap(options.adapter, scale=options.adapter_scale)
    if options.write_prompt:
        analyzer, _ = face_analyzer(bundle)
        people = people_of(bundle, analyzer, portraits, (None,) * len(portraits))
        crops = [person.crop for person in people]
        prompt = "".join(PromptWriter(bundle).write(crops, options.task, options.scene))
    else:
        prompt = options.prompt or static_prompt(options.task, len(portraits), options.scene)
    by_template = not (options.write_prompt or options.prompt)
    request = GenerationRequest(
        prompt=prompt,
        portraits=portraits,
        task=options.task,
        seeds=tuple(range(options.seed, options.seed + options.candidates)),
        schedule=options.schedule,
        strength=options.strength,
        negative_prompt=options.negative_prompt,
        guidance=options.guidance,
        identity_guidance=options.identity_guidance,
        steps=options.steps,
        height=options.height,
        width=options.width,
        face_detail=not options.no_face_detail,
        expected_order=tuple(range(len(portraits))) if by_template else None,
    )
    with tqdm(unit="step") as bar:
        candidates = generate(bundle, request, on_step=lambda report: _advance(bar, report))

    options.out.mkdir(parents=True, exist_ok=True)
    for candidate in candidates:
        file = options.out / f"seed-{candidate.seed}.png"
        file.write_bytes(encode_png(candidate.picture, candidate.record()))
        print(f"{file}  {_line(candidate)}")
    for note in candidates[0].notes:
        print(f"note: {note}", file=sys.stderr)
    records = [candidate.record() for candidate in candidates]
    (options.out / "results.json").write_text(json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    print(", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in candidates[0].seconds.items()))


def _advance(bar: tqdm, report: StepReport) -> None:
    if report.step == 1:
        bar.set_description("Denoising" if report.stage == "picture" else "Faces", refresh=False)
        bar.reset(report.total)
    bar.update()


def _line(candidate: Candidate) -> str:
    if candidate.faces is None:
        return "faces not measured"
    each = ", ".join(
        f"image {row.reference + 1} {row.similarity:.2f}{'' if row.covered else ' (missing)'}"
        for row in candidate.faces.rows
    )
    return f"FaceSim {candidate.faces.face_sim:.2f} ({each}), {candidate.faces.duplicates} duplicates"
