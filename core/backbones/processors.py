"""The vision-language processors of both families without their video part.

`Qwen3VLProcessor` and `Qwen2VLProcessor` insist on a video processor, and that class needs torchvision. No
video is ever read here, so the two subclasses below leave it out; texts and pictures are processed by the
stock code.
"""

from __future__ import annotations

from pathlib import Path

from transformers import ProcessorMixin, Qwen2VLProcessor, Qwen3VLProcessor


def _without_video(stock: type[ProcessorMixin]) -> type[ProcessorMixin]:
    # Name and module stay the stock ones, so that a saved bundle names a class every installation knows.
    return type(
        stock.__name__,
        (stock,),
        {
            "__module__": stock.__module__,
            "get_attributes": classmethod(lambda cls: ["image_processor", "tokenizer"]),
        },
    )


PictureQwen3VLProcessor = _without_video(Qwen3VLProcessor)
PictureQwen2VLProcessor = _without_video(Qwen2VLProcessor)


def load_processor(folder: Path, pipeline_class: str) -> ProcessorMixin:
    """The processor of a diffusers folder (`folder/processor`) for a pipeline class of that name."""
    processor = PictureQwen3VLProcessor if pipeline_class == "QwenImage21Pipeline" else PictureQwen2VLProcessor
    return processor.from_pretrained(folder / "processor")
