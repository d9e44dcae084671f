"""What is known about a bundle before it is loaded: cards of the named ones, and the one in a bundle's folder.

Loading brings diffusers, transformers and peft into the process, which takes seconds; a card takes none of them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from core.schedule import IdentitySchedule

CARD_FILE = "bundle.json"
FACE_DETAIL = "face_detail"
"""Folder in a bundle of the transformer that paints faces once more (core/face_detail.py)."""
ASSETS = Path(__file__).resolve().parents[2] / "assets"
PIPELINES = {"qwen-image-2.1": "QwenImage21Pipeline", "qwen-image-edit-plus": "QwenImageEditPlusPipeline"}
"""Family -> the diffusers class of its pipeline, as `model_index.json` names it."""


class BundleError(RuntimeError):
    """A bundle is unknown, missing, incomplete or damaged; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class BundleCard:
    """What is known about a bundle before it is loaded; a bundle's own folder carries it as `bundle.json`.

    name: what `--bundle` takes and every result records.
    family: the set of classes, one of PIPELINES.
    source: hub id, or path of a diffusers folder.
    revision: hub revision; None for a folder, whose revision is taken from its weights.
    licence: of the weights, for a person to read before downloading.
    dtype: of the weights on a GPU; on a CPU they are loaded as float32.
    download_gb, memory_gb: size of the download; weights in `dtype` plus work space for a picture of default
        size.
    steps, height, width: defaults of a generation; the sides in pixels.
    trained_sizes: the only (height, width) it learned, if few: the app offers them, others carry a note.
    guidance: default scale of classifier-free guidance towards the prompt; 1 is none.
    child_guidance: the same for the age task; None where there is no difference.
    guidance_above: the noise level down to which it acts (core/sampler.py).
    identity_guidance: default scale of guidance towards the references (core/injection.py); 1 is none.
    child_schedule: default identity schedule of the age task, as text; the paper's window suits models that draw
        children from the prompt alone, a small one may have to see the portraits earlier.
    reference_side: references are resized to this side squared in area, in pixels; the side of a face crop.
    text_first: the prompt stands before the pictures (see core/backbones/qwen_image_21.py).
    text_stride: prompts are padded to a multiple of this many tokens, as the transformer was trained.
    max_references: how many people.
    face_pack: folder relative to the bundle, or name of an InsightFace pack; None for the application's own.
    """

    name: str
    family: str
    source: str
    revision: str | None = None
    licence: str
    dtype: str = "bfloat16"
    download_gb: float = 0.0
    memory_gb: float
    steps: int
    height: int
    width: int
    trained_sizes: tuple[tuple[int, int], ...] = ()
    guidance: float = 1.0
    child_guidance: float | None = None
    guidance_above: float = 0.0
    identity_guidance: float = 1.0
    child_schedule: str = "gate-0.3-0.6"
    reference_side: int
    text_first: bool = False
    text_stride: int = 1
    max_references: int
    face_pack: str | None = None

    def __post_init__(self) -> None:
        if self.family not in PIPELINES:
            raise ValueError(f"The family {self.family!r} is unknown; choose one of {', '.join(PIPELINES)}.")
        if self.text_first and self.family != "qwen-image-2.1":
            raise ValueError(f"text_first is set, but the family {self.family} has one order only.")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"dtype is {self.dtype!r}; choose float32, bfloat16 or float16.")
        for field in ("guidance", "child_guidance", "identity_guidance"):
            if (scale := getattr(self, field)) is not None and scale < 1:
                raise ValueError(f"{field} is {scale!r}, but must be at least 1.")
        if not 0 <= self.guidance_above < 1:
            raise ValueError(f"guidance_above is {self.guidance_above!r}, but must be in [0, 1).")
        IdentitySchedule.parse(self.child_schedule)
        for field in ("steps", "height", "width", "reference_side", "max_references"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)!r}, but must be at least 1.")

    @property
    def has_face_detail(self) -> bool:
        """Whether it paints faces once more; bundles of the hub have no transformer for that."""
        return self.revision is None and (Path(self.source) / FACE_DETAIL).is_dir()

    def guidance_of(self, task: str) -> float:
        """Default scale of guidance towards the prompt for a task, "group" or "child"."""
        return self.guidance if task != "child" or self.child_guidance is None else self.child_guidance


MINI = BundleCard(
    name="mini",
    family="qwen-image-2.1",
    source=str(ASSETS / "mini"),
    licence="Apache-2.0, trained by this project on rendered people",
    memory_gb=1.0,
    steps=20,
    height=256,
    width=256,
    reference_side=128,
    text_first=True,
    max_references=3,
)
"""The default bundle. `trainers.mini` writes this card into the bundle's folder; what stands there is what
counts.
"""

QWEN_IMAGE_EDIT_2511 = BundleCard(
    name="qwen-image-edit-2511",
    family="qwen-image-edit-plus",
    source="Qwen/Qwen-Image-Edit-2511",
    revision="main",
    licence="Apache-2.0",
    download_gb=58.0,
    memory_gb=64.0,
    steps=40,
    height=1024,
    width=1024,
    reference_side=1024,
    max_references=3,
)

QWEN_IMAGE_21 = BundleCard(
    name="qwen-image-2.1",
    family="qwen-image-2.1",
    source="Qwen/Qwen-Image-2.1",
    revision="b3179ad355be050328e483a9dfdd9e60cd62adfa",
    licence="Qwen Research License: non-commercial research and evaluation only",
    download_gb=33.0,
    memory_gb=40.0,
    steps=40,
    height=1024,
    width=1024,
    reference_side=1024,
    max_references=10,
)

BUNDLES = {card.name: card for card in (MINI, QWEN_IMAGE_EDIT_2511, QWEN_IMAGE_21)}


def write_card(folder: Path, card: BundleCard) -> None:
    """Write a card into a bundle's folder. `source` is left out: a folder may be moved."""
    fields = dataclasses.asdict(card)
    del fields["source"]
    (folder / CARD_FILE).write_text(json.dumps(fields, indent=2) + "\n")


def find_card(name_or_path: str | Path) -> BundleCard:
    """The card of a named bundle or of a diffusers folder, without loading anything.

    A folder without `bundle.json` takes sizes and steps from the hub bundle of its family.
    """
    card = BUNDLES.get(str(name_or_path))
    if card is not None and card.revision is not None:
        return card
    folder = Path(card.source if card else name_or_path).expanduser()
    if not (folder / "model_index.json").is_file():
        raise _missing_folder(name_or_path, folder)
    if (folder / CARD_FILE).is_file():
        try:
            card = BundleCard(source=str(folder), **json.loads((folder / CARD_FILE).read_text()))
            return dataclasses.replace(card, trained_sizes=tuple(map(tuple, card.trained_sizes)))
        except (TypeError, ValueError) as error:
            raise BundleError(f"{folder / CARD_FILE} is not a bundle's card: {error}") from error
    pipeline_class = json.loads((folder / "model_index.json").read_text()).get("_class_name")
    for family in (QWEN_IMAGE_21, QWEN_IMAGE_EDIT_2511):
        if PIPELINES[family.family] == pipeline_class:
            return dataclasses.replace(
                family, name=folder.name, source=str(folder), revision=None, licence="unknown, see its source"
            )
    raise BundleError(f"{folder} holds a {pipeline_class}, but bundles are one of {', '.join(PIPELINES.values())}.")


def _missing_folder(name_or_path: str | Path, folder: Path) -> BundleError:
    if str(name_or_path) == MINI.name:
        return BundleError(
            f"The mini bundle is not in {folder}: no model_index.json there. It is part of the repository (`git "
            "checkout -- assets/mini`); to train it, run `python -m trainers.mini.vae`, `python -m "
            "trainers.mini.vlm` and `python -m trainers.mini.transformer`."
        )
    return BundleError(
        f"There is no bundle {str(name_or_path)!r}: give one of {', '.join(BUNDLES)}, or a folder that a "
        f"diffusers pipeline was saved to ({folder / 'model_index.json'} was looked for)."
    )
