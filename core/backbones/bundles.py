"""Bundles: everything needed to generate - transformer, VAE, VLM, scheduler, face pack - by name or from a
folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import diffusers
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import tqdm

from core.adapters import Adapters
from core.backbones.cards import FACE_DETAIL, PIPELINES, BundleCard, BundleError, find_card
from core.backbones.cpu_attention import attend_by_products
from core.backbones.processors import load_processor
from core.backbones.protocol import Backbone
from core.backbones.qwen_image_21 import QwenImage21Backbone, embed_patches_as_product
from core.backbones.qwen_image_edit_plus import QwenImageEditPlusBackbone
from core.face_detail import SIDE, FaceDetail
from core.faces import FaceAnalyzer, default_pack
from core.precision import Precision, computes_in_bfloat16
from core.prompt_writer import WRITER
from core.recently_used import RecentlyUsed

DownloadProgress = Callable[[int, int], None]
"""Called with the bytes on disk and the bytes known to come; the total grows while files are being listed."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A loaded bundle.

    card: as written in its folder, or in BUNDLES.
    folder: where its files lie.
    revision: hub commit, or a fingerprint of a local folder's weights; recorded with every result and adapter.
    backbone: the model family's calls on the loaded weights.
    adapters: LoRA adapters on its transformer.
    face_pack: what `FaceAnalyzer` takes; need not be there.
    face_detail: paints faces once more at twice their size; None where the bundle has no transformer for it.
    """

    card: BundleCard
    folder: Path
    revision: str
    backbone: Backbone
    adapters: Adapters
    face_pack: Path | str
    face_detail: FaceDetail | None = None

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
    halved = dtype is None and device.type == "cpu" and computes_in_bfloat16(precision, device)
    if halved:
        dtype = {"transformer": torch.bfloat16, "default": torch.float32}
    elif dtype is None:
        dtype = torch.float32 if device.type == "cpu" else getattr(torch, card.dtype)
    pipeline_class = getattr(diffusers, PIPELINES[card.family])
    try:
        pipeline = pipeline_class.from_pretrained(
            folder,
            processor=load_processor(folder, pipeline_class.__name__),
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
        )
        detail = _face_detail_transformer(folder, pipeline.transformer) if card.has_face_detail else None
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
    if halved and card.family == "qwen-image-2.1":
        for transformer in filter(None, (pipeline.transformer, detail)):
            attend_by_products(transformer)
    if detail is not None:
        detail = FaceDetail(face_detail_backbone(card, pipeline, detail.to(device)))
    revision = _fingerprint(folder) if card.revision is None else folder.name
    return Bundle(
        card=card,
        folder=folder,
        revision=revision,
        backbone=_backbone(card, pipeline),
        adapters=Adapters(pipeline.transformer, base=card.name, base_revision=revision),
        face_pack=_face_pack(card, folder),
        face_detail=detail,
    )


def _face_detail_transformer(folder: Path, like: torch.nn.Module) -> torch.nn.Module:
    transformer = type(like).from_pretrained(
        folder / FACE_DETAIL, torch_dtype=like.dtype, use_safetensors=True, local_files_only=True
    )
    return transformer.requires_grad_(False).eval()


def face_detail_backbone(card: BundleCard, pipeline: Any, transformer: torch.nn.Module) -> Backbone:
    """The transformer for faces, with VAE and VLM of a bundle's pipeline."""
    components = {**pipeline.components, "transformer": transformer}
    own_sizes = dataclasses.replace(card, reference_side=SIDE, text_stride=1, max_references=1)
    return _backbone(own_sizes, type(pipeline)(**components))


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
