"""Starts the studio: settings, store, models and the training worker in the background, page."""

from __future__ import annotations

import logging
import os
from contextlib import suppress

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

# Before torch, which it changes on Spaces with ZeroGPU.
import studio.zero_gpu  # noqa: F401

# isort: split
import gradio as gr
import onnxruntime
import torch

from studio.context import Studio
from studio.generation import GenerationJobs
from studio.hub_copies import HubCopies
from studio.model_host import ModelHost, ModelsNotReady
from studio.panels.people import EXAMPLES
from studio.settings import Settings
from studio.store import Store
from studio.theme import STYLE_SHEET, studio_theme
from studio.ui import build_page
from studio.worker_process import WorkerProcess


def describe_devices() -> str:
    """What the machine offers, in two lines: a missing GPU package is seen here and not in the first slow picture."""
    torch_device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return (
        f"PyTorch {torch.__version__}: {torch_device}\n"
        f"ONNX Runtime {onnxruntime.__version__}: {', '.join(onnxruntime.get_available_providers())}"
    )


def open_studio(settings: Settings) -> Studio:
    """The application behind the page; its models are not read yet."""
    store = Store.open(
        settings.data,
        database_url=settings.database_url and settings.database_url.get_secret_value(),
    )
    host = ModelHost(
        settings.bundle,
        face_pack=settings.face_pack,
        device=None if settings.device == "auto" else settings.device,
        allow_download=settings.allow_download,
        precision=settings.precision,
        threads=settings.threads,
    )
    jobs = GenerationJobs(store, host)
    jobs.start()
    copies = HubCopies.from_settings(settings, store)
    if copies is not None:
        copies.start()
    return Studio(settings, store, host, jobs, copies)


def launch(studio: Studio, page: gr.Blocks) -> None:
    """Serve the page; returns at once."""
    settings = studio.settings
    media = studio.store.folder / "media"
    # Served from where they lie: Gradio would otherwise keep copies that outlive the deletion of a person.
    gr.set_static_paths([media, EXAMPLES])
    page.queue(max_size=None).launch(
        server_name=settings.host,
        server_port=settings.port or None,
        share=settings.share,
        auth=settings.credentials,
        allowed_paths=[str(media), str(EXAMPLES)],
        max_file_size=f"{settings.max_upload_mb:g}mb",
        theme=studio_theme(),
        css_paths=STYLE_SHEET,
        footer_links=["api", "settings"],
        ssr_mode=False,
        prevent_thread_lock=True,
    )


def main() -> None:
    settings = Settings.from_command_line()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    print(describe_devices(), flush=True)
    studio = open_studio(settings)
    page = build_page(studio)
    worker = WorkerProcess(settings)
    try:
        launch(studio, page)
        # One after the other: the page comes first, and what is read beside it would take its time.
        studio.host.start()
        with suppress(ModelsNotReady):
            studio.host.wait(None)
        if settings.worker:
            worker.start()
        page.block_thread()
    except KeyboardInterrupt:  # while models are read; afterwards `block_thread` takes it
        pass
    finally:
        worker.stop()


if __name__ == "__main__":
    main()
