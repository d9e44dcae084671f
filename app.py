"""Starts the studio."""

from __future__ import annotations

import gradio as gr
import onnxruntime
import torch


def describe_devices() -> str:
    """What the machine offers, in two lines: a missing GPU package is seen here and not in the first slow picture."""
    torch_device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return (
        f"PyTorch {torch.__version__}: {torch_device}\n"
        f"ONNX Runtime {onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"
    )


def main() -> None:
    print(describe_devices(), flush=True)
    with gr.Blocks(title="IdGlow Studio") as page:
        gr.Markdown("# IdGlow Studio\nThe studio's pages are not part of this version yet.")
    page.launch()


if __name__ == "__main__":
    main()
