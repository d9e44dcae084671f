"""The Library page: everything that was made, who is in it, and how it gets in and out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.context import Studio
from studio.draft import Draft
from studio.model_host import ModelsNotReady
from studio.panels import exchange, results
from studio.panels.exchange import ExchangePanel
from studio.panels.judging_view import notice
from studio.store import Deletion, GalleryFilter, StoreError
from studio.store.models import Person

PAGE = 40
"""Pictures fetched at a time."""
TASKS = [("Group pictures", "group"), ("As children", "child")]
MODES = [("Anneal", "anneal"), ("Gate", "gate"), ("Constant", "constant"), ("Off", "off")]
NOTHING = '<div class="nothing-yet"><p class="nothing-yet-title">{title}</p><p>{words}</p></div>'


@dataclass(frozen=True, eq=False)
class LibraryPanel:
    task: gr.Dropdown
    person: gr.Dropdown
    adapter: gr.Dropdown
    mode: gr.Dropdown
    words: gr.Textbox
    favourites: gr.Checkbox
    bin: gr.Checkbox
    count: gr.HTML
    loaded: gr.State
    gallery: gr.Gallery
    more: gr.Button
    chosen: gr.State
    details: gr.HTML
    tools: gr.Row
    favourite: gr.Button
    hide: gr.Button
    download: gr.DownloadButton
    people: gr.Gallery
    people_note: gr.HTML
    doomed: gr.State
    preview: gr.HTML
    confirm_row: gr.Row
    delete: gr.Button
    keep: gr.Button
    data: ExchangePanel

    @property
    def filters(self) -> list[Any]:
        return [self.task, self.person, self.adapter, self.mode, self.words, self.favourites, self.bin]


def build(studio: Studio) -> LibraryPanel:
    with gr.Column(elem_id="library"):
        with gr.Row(elem_id="library-filters"):
            words = gr.Textbox(label="Words in the prompt", max_lines=1, min_width=180, elem_id="library-words")
            task = _any("Task", TASKS)
            person = _any("Person", [])
            mode = _any("Timing", MODES)
            adapter = _any("Adapter", [])
            with gr.Column(min_width=120, scale=0):
                favourites = gr.Checkbox(label="Favourites", elem_id="library-favourites")
                binned = gr.Checkbox(label="Bin", elem_id="library-bin")
        count = gr.HTML(elem_id="library-count")
        with gr.Row(equal_height=False):
            with gr.Column(scale=8, min_width=320):
                gallery = gr.Gallery(
                    columns=5,
                    height="auto",
                    object_fit="cover",
                    allow_preview=False,
                    buttons=[],
                    show_label=False,
                    visible=False,
                    elem_id="library-gallery",
                )
                more = gr.Button("Load more", visible=False, elem_id="library-more")
            with gr.Column(scale=4, min_width=320, elem_id="library-side"):
                details = gr.HTML(elem_id="library-details")
                with gr.Row(visible=False) as tools:
                    favourite = gr.Button("Favourite", size="sm", elem_id="library-favourite")
                    hide = gr.Button("Put into the bin", size="sm", elem_id="library-hide")
                    download = gr.DownloadButton("Download", size="sm", elem_id="library-download")
        with gr.Accordion("People", open=False, elem_id="library-people"):
            people_note = gr.HTML(elem_id="people-note")
            people = gr.Gallery(
                columns=8,
                height="auto",
                object_fit="cover",
                allow_preview=False,
                buttons=[],
                show_label=False,
                visible=False,
                elem_id="people-gallery",
            )
            preview = gr.HTML(elem_id="deletion-preview")
            with gr.Row(visible=False) as confirm_row:
                delete = gr.Button("Delete for good", variant="stop", elem_id="delete-person")
                keep = gr.Button("Keep", elem_id="keep-person")
        data = exchange.build(studio)
    return LibraryPanel(
        task, person, adapter, mode, words, favourites, binned, count, gr.State(()), gallery, more, gr.State(None),
        details, tools, favourite, hide, download, people, people_note, gr.State(None), preview, confirm_row, delete,
        keep, data,
    )  # fmt: skip


def _any(label: str, choices: list[tuple[str, str]]) -> gr.Dropdown:
    return gr.Dropdown([("Any", ""), *choices], value="", label=label, min_width=140)


def wire(panel: LibraryPanel, studio: Studio, draft: gr.BrowserState, tab: gr.Tab) -> None:
    store = studio.store
    shelf = [panel.count, panel.loaded, panel.gallery, panel.more]
    selection = [panel.chosen, panel.details, panel.tools, panel.favourite, panel.hide, panel.download]
    folk = [panel.people, panel.people_note, panel.doomed, panel.preview, panel.confirm_row]

    def open_(values: dict[Any, Any]) -> dict[Any, Any]:
        owner = _owner(studio, values[draft])
        people = [("Any", ""), *((person.name, person.id) for person in store.people.list(owner_id=owner))]
        adapters = [("Any", ""), *((adapter.name, adapter.id) for adapter in store.adapters.list())]
        return {
            panel.person: gr.update(choices=people, value=_still(values[panel.person], people)),
            panel.adapter: gr.update(choices=adapters, value=_still(values[panel.adapter], adapters)),
            panel.data.copies: exchange.copies_html(studio),
            **dict(zip(shelf, first_page(values), strict=True)),
            **dict(zip(folk, people_values(studio, owner), strict=True)),
        }

    def wanted(values: Mapping[Any, Any]) -> GalleryFilter:
        return GalleryFilter(
            task=values[panel.task] or None,
            person_id=values[panel.person] or None,
            adapter_id=values[panel.adapter] or None,
            schedule_mode=values[panel.mode] or None,
            favourites=bool(values[panel.favourites]),
            deleted=bool(values[panel.bin]),
            words=values[panel.words] or "",
            author_id=_owner(studio, values[draft]),
        )

    def first_page(values: Mapping[Any, Any]) -> tuple[Any, ...]:
        return shelf_values(studio, wanted(values), ())

    def refreshed(values: dict[Any, Any]) -> tuple[Any, ...]:
        return shelf_values(studio, wanted(values), tuple(values[panel.loaded])[PAGE:])

    def next_page(values: dict[Any, Any]) -> tuple[Any, ...]:
        return shelf_values(studio, wanted(values), tuple(values[panel.loaded]))

    def choose(loaded: tuple[str, ...], event: gr.SelectData) -> tuple[Any, ...]:
        return selected(studio, loaded[event.index] if event.index < len(loaded) else None)

    def mark(chosen: str | None) -> tuple[Any, ...]:
        if chosen is not None:
            store.generations.set_favourite(chosen, not store.generations.candidate(chosen).favourite)
        return selected(studio, chosen)

    def hide(chosen: str | None) -> tuple[Any, ...]:
        if chosen is not None:
            candidate = store.generations.candidate(chosen)
            (store.generations.hide if candidate.deleted_at is None else store.generations.restore)([chosen])
        return selected(studio, None)

    def ask(drafted: dict[str, Any], event: gr.SelectData) -> tuple[Any, ...]:
        people = _with_portraits(studio, _owner(studio, drafted))
        if event.index >= len(people):
            return None, "", gr.update(visible=False)
        person = people[event.index]
        try:
            return (
                person.id,
                deletion_html(person.name, store.deletions.preview_person(person.id)),
                gr.update(visible=True),
            )
        except StoreError as error:
            return None, notice(str(error), bad=True), gr.update(visible=False)

    def delete(values: dict[Any, Any]) -> tuple[Any, ...]:
        doomed, owner = values[panel.doomed], _owner(studio, values[draft])
        if doomed is None:
            return (gr.skip(),) * (len(shelf) + len(selection) + len(folk))
        try:
            person = store.people.get(doomed)
            if owner is not None and person.owner_id != owner:
                raise StoreError("This person was added by somebody else.")
            gone = store.deletions.delete_person(doomed)
            words = notice(f"{person.name} is deleted: {counts(gone)}.")
        except StoreError as error:
            words = notice(str(error), bad=True)
        forget_encodings(studio)
        people, note, none, _, row = people_values(studio, owner)
        return *first_page(values), *selected(studio, None), people, note, none, words, row

    private = {"api_visibility": "private", "show_progress": "hidden"}
    filters = {draft, *panel.filters}
    tab.select(open_, filters, [panel.person, panel.adapter, panel.data.copies, *shelf, *folk], **private)
    for control in panel.filters:
        # Typing a word sends several changes; only the last one matters.
        control.change(first_page, filters, shelf, trigger_mode="always_last", **private)
    panel.more.click(next_page, {*filters, panel.loaded}, shelf, **private)
    panel.gallery.select(choose, [panel.loaded], selection, **private)
    for act, button in ((mark, panel.favourite), (hide, panel.hide)):
        # In two steps, so that the shelf follows the filters as they are by then.
        button.click(act, [panel.chosen], selection, **private).then(
            refreshed, {*filters, panel.loaded}, shelf, **private
        )
    panel.people.select(ask, [draft], [panel.doomed, panel.preview, panel.confirm_row], **private)
    panel.keep.click(
        lambda: (None, "", gr.update(visible=False)),
        outputs=[panel.doomed, panel.preview, panel.confirm_row],
        **private,
    )
    panel.delete.click(delete, {*filters, panel.doomed}, [*shelf, *selection, *folk], **private)
    exchange.wire(panel.data, studio).then(first_page, filters, shelf, **private)


def shelf_values(studio: Studio, wanted: GalleryFilter, loaded: tuple[str, ...]) -> tuple[Any, ...]:
    """Values of count, loaded, gallery and more, with the page that follows the candidates already loaded."""
    generations = studio.store.generations
    total = generations.count(wanted)
    # Deleting and adding move pages, so what is on show is always read anew, down to where the person has come.
    found = generations.gallery(wanted, limit=len(loaded) + PAGE)
    if not found:
        binned = wanted.deleted
        title = "The bin is empty" if binned else "Nothing here"
        words = "Pictures put into it can be taken back." if binned else "Nothing was made yet, or the filters hide it."
        return (
            NOTHING.format(title=title, words=words),
            (),
            gr.update(value=[], visible=False),
            gr.update(visible=False),
        )
    pictures = [(str(studio.store.media.path(candidate.media_sha256)), caption(candidate)) for candidate in found]
    number = "1 picture" if total == 1 else f"{total:,} pictures"
    return (
        f'<p class="library-count">{number}</p>',
        tuple(candidate.id for candidate in found),
        gr.update(value=pictures, visible=True, selected_index=None),
        gr.update(visible=total > len(found)),
    )


def caption(candidate: Any) -> str:
    star = "★ " if candidate.favourite else ""
    return f"{star}{candidate.generation.schedule}"


def selected(studio: Studio, chosen: str | None) -> tuple[Any, ...]:
    """Values of chosen, details, tools, favourite, hide and download for one candidate, or for none."""
    nothing = None, "", gr.update(visible=False), "Favourite", "Put into the bin", None
    if chosen is None:
        return nothing
    try:
        candidate = studio.store.generations.candidate(chosen)
    except StoreError:
        return nothing
    url = escape(studio.media_url(candidate.media_sha256))
    return (
        candidate.id,
        f'<img class="library-picture zoomable" src="{url}" alt="chosen picture">'
        + results.strip_html(studio, candidate.generation, candidate)
        + results.settings_html(studio, candidate.generation, candidate),
        gr.update(visible=True),
        results.favourite_label(candidate.favourite),
        "Put into the bin" if candidate.deleted_at is None else "Take back",
        str(studio.store.media.path(candidate.media_sha256)),
    )


def people_values(studio: Studio, owner: str | None) -> tuple[Any, ...]:
    """Values of people, people_note, doomed, preview and confirm_row."""
    shown = [
        (str(studio.store.media.path(person.portraits[-1].crop_sha256)), person.name)
        for person in _with_portraits(studio, owner)
    ]
    note = (
        "Choose a person to see what belongs to them and to delete all of it."
        if shown
        else "Nobody yet. People appear here when you add portraits on the Create page."
    )
    return (
        gr.update(value=shown, visible=bool(shown), selected_index=None),
        f'<p class="note">{note}</p>',
        None,
        "",
        gr.update(visible=False),
    )


def counts(deletion: Deletion) -> str:
    """What a deletion removes, in words."""
    parts = {
        "portrait": deletion.portraits,
        "prompt": deletion.prompts,
        "picture": deletion.candidates,
        "comparison": deletion.comparisons,
        "pick": deletion.picks,
        "training pair": deletion.pairs,
        "file": deletion.files,
    }
    return (
        ", ".join(f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in parts.items() if count) or "nothing"
    )


def deletion_html(name: str, deletion: Deletion) -> str:
    """What deleting a person would remove, before it is confirmed."""
    learned = ""
    if deletion.adapter_names:
        names = ", ".join(deletion.adapter_names)
        learned = f"<p>Adapters that learned from these pictures stay and are marked: {escape(names)}.</p>"
    return (
        f'<div class="deletion"><p>Deleting <b>{escape(name)}</b> removes {counts(deletion)}. Group pictures with '
        f"other people go as a whole. This cannot be undone.</p>{learned}</div>"
    )


def forget_encodings(studio: Studio) -> None:
    """Drop what the models keep in memory about portraits."""
    try:
        studio.host.bundle.encodings.clear()
    except ModelsNotReady:
        return  # nothing was encoded yet


def _owner(studio: Studio, state: Mapping[str, Any] | None) -> str | None:
    """Whose things are shown; None for everybody's."""
    return None if studio.sees_everything else Draft.read(state).owner(studio.store).id


def _with_portraits(studio: Studio, owner: str | None) -> list[Person]:
    return [person for person in studio.store.people.list(owner_id=owner) if person.portraits]


def _still(value: str, choices: list[tuple[str, str]]) -> str:
    return value if any(value == known for _, known in choices) else ""
