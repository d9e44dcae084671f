"""CLIP, where it is installed: how well a picture fits its prompt, and how it is liked (LAION's predictors).

Nothing is downloaded. The model is looked for in the Hugging Face cache or at IDGLOW_CLIP (a folder, or the id of a
cached model), the aesthetic head at IDGLOW_AESTHETIC_HEAD: a file of LAION-AI/aesthetic-predictor
(`sa_0_4_vit_l_14_linear.pth`) or christophschuhmann/improved-aesthetic-predictor (`sac+logos+ava1-l14-linearMSE.pth`),
both for CLIP ViT-L/14.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

DEFAULT_MODEL = "openai/clip-vit-large-patch14"
HEAD_LAYERS = (0, 2, 4, 6, 7)
"""Numbers of the linear layers in the improved head; between them it has dropout only."""


class ClipScorer:
    """CLIP similarity of prompt and picture; with a head, the aesthetic score as well.

    Args:
        model: folder of a CLIP model as transformers saves it, with tokenizer and image processor.
        head: file of an aesthetic head, see above.

    Raises:
        ValueError: the head is of another kind, or for features of another size.
    """

    def __init__(self, model: Path, head: Path | None = None, *, name: str | None = None) -> None:
        self.name = f"CLIP, mean over sentences, {name or model.name}"
        self._model = CLIPModel.from_pretrained(model, local_files_only=True).eval().requires_grad_(False)
        self._tokenizer = CLIPTokenizer.from_pretrained(model, local_files_only=True)
        self._processor = CLIPImageProcessorPil.from_pretrained(model, local_files_only=True)
        self._head = None if head is None else read_head(head, self._model.config.projection_dim)
        self.aesthetic_name = None if head is None else f"{head.stem} on {name or model.name}"

    @torch.no_grad()
    def semantic(self, prompt: str, picture: np.ndarray) -> float:
        """Cosine in [-1, 1], mean over the sentences of the prompt: CLIP reads no more than 77 tokens at once."""
        sentences = [sentence.strip() for sentence in re.split(r"(?<=[.;!?])\s+", prompt) if sentence.strip()]
        if not sentences:
            raise ValueError("The prompt is empty; there is nothing to compare the picture with.")
        tokens = self._tokenizer(sentences, padding=True, truncation=True, return_tensors="pt")
        texts = _unit(self._model.get_text_features(**tokens).pooler_output)
        return float((texts @ self._features(picture)).mean())

    @torch.no_grad()
    def aesthetic(self, picture: np.ndarray) -> float | None:
        """About 1 to 10, more is better; None without a head."""
        return None if self._head is None else float(self._head(self._features(picture)))

    def _features(self, picture: np.ndarray) -> Tensor:
        pixels = self._processor(images=[picture], return_tensors="pt")["pixel_values"]
        return _unit(self._model.get_image_features(pixel_values=pixels).pooler_output)[0]


def _unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def read_head(file: Path, size: int) -> nn.Module:
    """An aesthetic head (size,) -> (1,) for CLIP features of unit length."""
    weights = torch.load(file, map_location="cpu", weights_only=True)
    if set(weights) == {"weight", "bias"}:
        layers = [("weight", "bias")]
    else:
        layers = [(f"layers.{number}.weight", f"layers.{number}.bias") for number in HEAD_LAYERS]
    if set(weights) != {name for layer in layers for name in layer}:
        raise ValueError(f"{file} is none of the two aesthetic heads that are known; it holds {', '.join(weights)}.")
    if weights[layers[0][0]].shape[1] != size:
        raise ValueError(f"{file} is for features of {weights[layers[0][0]].shape[1]} numbers, CLIP gives {size}.")
    head = nn.Sequential()
    for weight, bias in layers:
        linear = nn.Linear(*reversed(weights[weight].shape))
        linear.load_state_dict({"weight": weights[weight], "bias": weights[bias]})
        head.append(linear)
    return head.eval().requires_grad_(False)


def installed_clip() -> ClipScorer | None:
    """The CLIP model of this machine; None where there is none."""
    asked = os.environ.get("IDGLOW_CLIP", DEFAULT_MODEL)
    folder = Path(asked).expanduser()
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(asked, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):
            return None
    if not (folder / "config.json").is_file():
        return None
    head = os.environ.get("IDGLOW_AESTHETIC_HEAD")
    return ClipScorer(folder, Path(head) if head else None, name=asked.rsplit("/", 1)[-1])
