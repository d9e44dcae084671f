"""How the decisions leave the studio and come back: exports, imports, and the copy on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.panels.judging_view import notice
from studio.store import StoreError
from studio.transfer import EXPORTS, export_file, import_file

IMPORT_ENDINGS = [".parquet", ".zip"]


@dataclass(frozen=True, eq=False)
class ExchangePanel:
    kind: gr.Radio
    portraits: gr.Checkbox
    copies: gr.HTML
    export: gr.Button
    exported: gr.DownloadButton
    incoming: gr.File
    report: gr.HTML


def build(studio: Studio) -> ExchangePanel:
    with gr.Accordion("Export and import", open=False, visible=studio.sees_everything, elem_id="library-data"):
        kind = gr.Radio(
            [(label, name) for name, (label, _) in EXPORTS.items()],
            value="parquet",
            label="Export",
            elem_id="export-kind",
        )
        portraits = gr.Checkbox(
            label="With the reference portraits",
            info="They are personal data; the archive always holds them.",
            elem_id="export-portraits",
        )
        copies = gr.HTML(elem_id="hub-copies")
        with gr.Row():
            export = gr.Button("Prepare file", elem_id="export")
            exported = gr.DownloadButton("Download", visible=False, variant="primary", elem_id="exported")
        incoming = gr.File(
            label="Import: Pick-a-Pic Parquet, TRL JSONL in a zip, or an archive of the studio",
            file_types=IMPORT_ENDINGS,
            height=120,
            elem_id="import",
        )
        report = gr.HTML(elem_id="import-report")
    return ExchangePanel(kind, portraits, copies, export, exported, incoming, report)


def wire(panel: ExchangePanel, studio: Studio) -> Any:
    """Returns what an import triggers, to show what came in."""
    store = studio.store

    def export(kind: str, portraits: bool) -> tuple[Any, str]:
        if not studio.sees_everything:
            raise gr.Error("Here each visitor sees their own pictures only, so nothing can be exported.")
        try:
            path, rows = export_file(store, kind, portraits=portraits)
        except StoreError as error:
            return gr.update(visible=False), notice(str(error), bad=True)
        words = f"{path.name}: {rows:,} rows, {path.stat().st_size / 1e6:.1f} MB."
        return gr.update(value=str(path), visible=True), notice(words if rows else f"{words} Nothing was picked yet.")

    def take_in(path: str | None) -> tuple[Any, None]:
        if path is None or not studio.sees_everything:
            return gr.skip(), None
        try:
            return notice(import_file(store, Path(path))), None
        except StoreError as error:
            return notice(str(error), bad=True), None

    panel.export.click(export, [panel.kind, panel.portraits], [panel.exported, panel.report], api_visibility="private")
    return panel.incoming.upload(take_in, [panel.incoming], [panel.report, panel.incoming], api_visibility="private")


def copies_html(studio: Studio) -> str:
    """How the copy of the picks on the hub stands; nothing where none is configured."""
    return "" if studio.copies is None else notice(studio.copies.state.message, bad=studio.copies.state.failed)
