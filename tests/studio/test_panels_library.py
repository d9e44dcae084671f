"""What the Library shows, deletes, exports and takes in."""

import pytest

from studio.context import Studio
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.panels import library
from studio.panels.library import deletion_html, people_values, selected, shelf_values
from studio.settings import Settings
from studio.store import GalleryFilter, Store, StoreError
from studio.transfer import EXPORTS, export_file, import_file
from tests.studio.picture_bytes import png
from tests.studio.store_samples import add_generation, add_person, new_pick


@pytest.fixture
def studio(store):
    host = ModelHost("nowhere")
    return Studio(Settings(data=store.folder), store, host, GenerationJobs(store, host))


def test_the_gallery_comes_in_pages_and_keeps_its_place(studio, store, monkeypatch):
    monkeypatch.setattr(library, "PAGE", 2)
    generation = add_generation(store, candidates=5)
    newest = [candidate.id for candidate in sorted(generation.candidates, key=lambda one: one.id, reverse=True)]
    count, loaded, gallery, more = shelf_values(studio, GalleryFilter(), ())
    assert "5 pictures" in count
    assert list(loaded) == newest[:2]
    assert len(gallery["value"]) == 2
    assert more["visible"]
    _, loaded, _, more = shelf_values(studio, GalleryFilter(), loaded)
    assert list(loaded) == newest[:4]
    _, loaded, _, more = shelf_values(studio, GalleryFilter(), loaded)
    assert list(loaded) == newest
    assert not more["visible"]


def test_an_empty_shelf_says_so(studio):
    count, loaded, gallery, _ = shelf_values(studio, GalleryFilter(), ())
    assert "Nothing here" in count
    assert loaded == ()
    assert not gallery["visible"]
    assert "bin is empty" in shelf_values(studio, GalleryFilter(deleted=True), ())[0]


def test_one_picture_with_its_settings_escaped(studio, store):
    generation = add_generation(store, prompt="<script>alert(1)</script>")
    candidate = generation.candidates[0]
    store.generations.save_metrics(candidate.id)
    with store.database.write() as session:
        row = session.get(type(candidate), candidate.id)
        row.face_report = None
    chosen, details, tools, favourite, hide, path = selected(studio, candidate.id)
    assert chosen == candidate.id
    assert "<script>" not in details
    assert "&lt;script&gt;" in details
    assert tools["visible"]
    assert (favourite, hide) == ("Favourite", "Put into the bin")
    assert path == str(store.media.path(candidate.media_sha256))
    store.generations.hide([candidate.id])
    assert selected(studio, candidate.id)[4] == "Take back"
    assert selected(studio, "0" * 32)[0] is None


def test_a_deletion_is_counted_in_words_before_it_is_done(store):
    person, portrait = add_person(store, "<b>Ada</b>")
    generation = add_generation(store, [portrait])
    comparison = store.comparisons.create([candidate.id for candidate in generation.candidates])
    store.picks.save(new_pick(comparison, store.people.annotator("Grace").id))
    html = deletion_html(person.name, store.deletions.preview_person(person.id))
    assert "1 portrait, 1 prompt, 2 pictures, 1 comparison, 1 pick" in html
    assert "<b>Ada</b>" not in html.replace("<b>&lt;b&gt;Ada", "")
    assert store.people.get(person.id)  # a preview deletes nothing


def test_people_of_others_are_not_shown_where_visitors_are_strangers(studio, store):
    ada = store.people.annotator("Ada")
    add_person(store, "hers", owner_id=ada.id)
    add_person(store, "somebody else's")
    assert [name for _, name in people_values(studio, ada.id)[0]["value"]] == ["hers"]
    assert len(people_values(studio, None)[0]["value"]) == 2


@pytest.mark.parametrize(
    ("settings", "everything"),
    [({}, True), ({"host": "0.0.0.0"}, False), ({"host": "0.0.0.0", "auth": "ada:secret"}, True)],
)
def test_who_sees_what_others_made(studio, store, settings, everything):
    shown = Studio(Settings(data=store.folder, **settings), store, studio.host, studio.jobs)
    assert shown.sees_everything is everything


@pytest.mark.parametrize("kind", EXPORTS)
def test_exports_are_files_that_come_back(studio, store, tmp_path, kind, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "served"))
    generation = add_generation(store, content=[png(1), png(2)])
    comparison = store.comparisons.create([candidate.id for candidate in generation.candidates])
    store.picks.save(new_pick(comparison, store.people.annotator("Ada").id))
    path, rows = export_file(store, kind)
    assert rows >= 1
    assert path.is_relative_to(tmp_path / "served")
    if kind == "csv":
        with pytest.raises(StoreError):
            import_file(store, path)
        return
    other = Store.open(tmp_path / "other")
    try:
        assert "added" in import_file(other, path)
        assert other.picks.count() == 1
    finally:
        other.close()


def test_an_unknown_export_is_refused(store):
    with pytest.raises(StoreError, match="parquet, jsonl"):
        export_file(store, "../etc")
