"""Bundles: everything needed to generate - transformer, VAE, VLM, scheduler, face pack - by name or from a
folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import QwenImage21Pipeline, QwenImageEditPlusPipeline
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import tqdm

from core.adapters import Adapters
from core.backbones.processors import load_processor
from core.backbones.protocol import Backbone
from core.backbones.qwen_image_21 import QwenImage21Backbone, embed_patches_as_product
from core.backbones.qwen_image_edit_plus import QwenImageEditPlusBackbone
from core.faces import FaceAnalyzer, default_pack
from core.precision import Precision, computes_in_bfloat16
from core.prompts import WRITER
from core.recently_used import RecentlyUsed
from core.schedule import IdentitySchedule

CARD_FILE = "bundle.json"
ASSETS = Path(__file__).resolve().parents[2] / "assets"
PIPELINES = {"qwen-image-2.1": QwenImage21Pipeline, "qwen-image-edit-plus": QwenImageEditPlusPipeline}

DownloadProgress = Callable[[int, int], None]
"""Called with the bytes on disk and the bytes known to come; the total grows while files are being listed."""


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


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle.

    card: as written in its folder, or in BUNDLES.
    folder: where its files lie.
    revision: hub commit, or a fingerprint of a local folder's weights; recorded with every result and adapter.
    backbone: the model family's calls on the loaded weights.
    adapters: LoRA adapters on its transformer.
    face_pack: what `FaceAnalyzer` takes; need not be there.
    """

    card: BundleCard
    folder: Path
    revision: str
    backbone: Backbone
    adapters: Adapters
    face_pack: Path | str

    @property
    def pipeline(self) -> Any:
        """The diffusers pipeline that holds the components."""
        return self.backbone.pipeline

    @cached_property
    def face_analyzer(self) -> FaceAnalyzer:
        """Detector and recogniser of the face pack, loaded at first use; raises FacePackError where it is not."""
        return FaceAnalyzer(self.face_pack, threads=torch.get_num_threads())

    @cached_property
    def encodings(self) -> RecentlyUsed:
        """What `core.generate` has encoded lately, so that a moved slider costs no encoding."""
        return RecentlyUsed(16)

    @property
    def text_encoder(self) -> Any:
        """The VLM, which encodes prompts and writes them."""
        return self.pipeline.text_encoder

    @property
    def processor(self) -> Any:
        """Tokenizer and picture processor of the VLM."""
        return self.pipeline.processor


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
        if PIPELINES[family.family].__name__ == pipeline_class:
            return dataclasses.replace(
                family, name=folder.name, source=str(folder), revision=None, licence="unknown, see its source"
            )
    raise BundleError(
        f"{folder} holds a {pipeline_class}, but bundles are one of "
        f"{', '.join(pipeline.__name__ for pipeline in PIPELINES.values())}."
    )


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


def load_bundle(
    name_or_path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    precision: Precision = "float32",
    allow_download: bool = False,
    progress: DownloadProgress | None = None,
) -> Bundle:
    """Load a bundle by name (BUNDLES) or from a diffusers folder.

    Args:
        device: where the weights go.
        dtype: of the weights; by default the card's on an accelerator and float32 on a CPU.
        precision: of the transformer on a CPU, without `dtype`. bfloat16 ("auto" where the CPU has units for it) halves
            the time; a seed's picture then differs a little with the number of candidates made at once.
        allow_download: fetch hub weights that are not here yet; licence and size are on the card. A connection
            that breaks is resumed; after a failure or a kill, finished files are kept.
        progress: told how the download goes; without it, bars on stderr.

    Raises:
        BundleError: unknown, missing, incomplete or damaged; says what to do.
    """
    device = torch.device(device)
    card = find_card(name_or_path)
    folder = Path(card.source) if card.revision is None else _fetch(card, allow_download, progress)
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else getattr(torch, card.dtype)
        if device.type == "cpu" and computes_in_bfloat16(precision, device):
            dtype = {"transformer": torch.bfloat16, "default": dtype}
    pipeline_class = PIPELINES[card.family]
    try:
        pipeline = pipeline_class.from_pretrained(
            folder,
            processor=load_processor(folder, pipeline_class.__name__),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
        )
        if (folder / WRITER).is_dir():
            pipeline.text_encoder.load_adapter(str(folder / WRITER), adapter_name=WRITER)
            pipeline.text_encoder.disable_adapters()
    except Exception as error:  # each part of a damaged bundle fails in its own way
        remedy = "restore its files" if card.revision is None else "download it again with allow_download=True"
        raise BundleError(
            f"The bundle in {folder} cannot be loaded ({type(error).__name__}: {error}); {remedy}."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.transformer, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    pipeline.to(device)
    revision = _fingerprint(folder) if card.revision is None else folder.name
    return Bundle(
        card=card,
        folder=folder,
        revision=revision,
        backbone=_backbone(card, pipeline),
        adapters=Adapters(pipeline.transformer, base=card.name, base_revision=revision),
        face_pack=_face_pack(card, folder),
    )


def _backbone(card: BundleCard, pipeline: Any) -> Backbone:
    if card.family == "qwen-image-2.1":
        embed_patches_as_product(pipeline.text_encoder)
        return QwenImage21Backbone(
            pipeline,
            reference_side=card.reference_side,
            text_first=card.text_first,
            text_stride=card.text_stride,
            max_references=card.max_references,
        )
    return QwenImageEditPlusBackbone(
        pipeline,
        reference_side=card.reference_side,
        condition_side=min(384, card.reference_side),
        max_references=card.max_references,
    )


def _face_pack(card: BundleCard, folder: Path) -> Path | str:
    if card.face_pack is None:
        return default_pack()
    own = folder / card.face_pack
    return own if own.is_dir() else card.face_pack


def _fetch(card: BundleCard, allow_download: bool, progress: DownloadProgress | None) -> Path:
    """Folder of a hub bundle's snapshot; its name is the commit."""
    reporter = None if progress is None else _reporter(progress)
    try:
        return Path(
            snapshot_download(
                card.source, revision=card.revision, local_files_only=not allow_download, tqdm_class=reporter
            )
        )
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        what = f"The weights of {card.name} ({card.source}, {card.download_gb:g} GB, licence: {card.licence})"
        if not allow_download:
            raise BundleError(
                f"{what} are not on this machine. Nothing is downloaded without being asked for: agree to it in the "
                "app, or pass --allow-download (allow_download=True)."
            ) from error
        raise BundleError(
            f"{what} cannot be downloaded: the hub cannot be reached. Connect to the network and try again - "
            f"finished files are kept - or copy a snapshot to this machine and give its folder as the bundle. ({error})"
        ) from error
    except Exception as error:  # the hub's HTTP library raises its own kinds
        raise BundleError(
            f"Downloading {card.name} from {card.source} failed ({type(error).__name__}: {error}). Finished "
            "files are kept; try again to go on."
        ) from error


def _reporter(progress: DownloadProgress) -> type[tqdm]:
    class Reporter(tqdm):
        """Counts for itself: a bar that is not on a terminal, or was switched off, counts nothing."""

        def __init__(self, *args: Any, name: str | None = None, **kwargs: Any) -> None:
            # huggingface_hub counts the bytes that have reached the disk in the bar of this name.
            self.reports = name == "huggingface_hub.snapshot_download"
            self.done = 0
            super().__init__(*args, name=name, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            if self.reports:
                self.done += int(n or 0)
                progress(self.done, int(self.total or 0))

    return Reporter


def _fingerprint(folder: Path) -> str:
    """Twelve hex digits from names, sizes and first MiB of the weights; training changes all of them."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(2**20))
    return digest.hexdigest()[:12]
