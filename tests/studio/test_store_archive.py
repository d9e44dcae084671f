"""The archive: a studio comes out of it as it went in, and what others send cannot do harm."""

from __future__ import annotations

import zipfile

import pytest
import sqlalchemy as sa

from studio.store import StoreError
from studio.store.archive import export_archive, import_archive
from studio.store.models import Base, Standing
from tests.studio.conftest import opened
from tests.studio.full_store import fill, pair_scores
from tests.studio.store_samples import add_generation, new_pick, png
from tests.studio.test_store_rounds import run_round


@pytest.fixture(scope="module")
def exported(place_in, tmp_path_factory):
    """The archive of such a store."""
    folder = tmp_path_factory.mktemp("exported")
    with place_in(folder / "data") as place, opened(place) as store:
        fill(store)
        export_archive(store, folder / "all.zip")
    return folder / "all.zip"


def everything(store):
    with store.database.read() as session:
        return {
            table.name: sorted(map(repr, session.execute(sa.select(table)).mappings()))
            for table in Base.metadata.sorted_tables
        }


def test_the_archive_is_lossless(full, other, tmp_path):
    path = tmp_path / "all.zip"
    rows = export_archive(full, path)
    assert rows == sum(map(len, everything(full).values()))
    report = import_archive(other, path)
    before, after = everything(full), everything(other)
    # Settings stay with their studio, files are added anew, and nothing else differs.
    assert before.pop("preferences") != after.pop("preferences") == []
    assert len(before.pop("media")) == len(after.pop("media")) == report.files
    assert after == before
    assert report.left_out == {} or set(report.left_out.values()) == {0}
    for candidate in full.generations.gallery():
        assert other.media.read(candidate.media_sha256) == full.media.read(candidate.media_sha256)


def test_importing_twice_or_into_itself_adds_nothing(full, other, tmp_path):
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    before = everything(other)
    before.pop("media")
    for store in (other, full):
        report = import_archive(store, path)
        assert sum(report.added.values()) == 0
    after = everything(other)
    after.pop("media")
    assert after == before


def test_an_archive_joins_a_studio_that_has_its_own(full, other, tmp_path):
    """What was decided here in the meantime stays."""
    path = tmp_path / "all.zip"
    export_archive(full, path)
    pair = full.picks.counted()[0].comparison
    import_archive(other, path)
    ada = next(person for person in other.people.annotators() if person.name == "Ada")
    other.picks.undo_last(ada.id)
    first = next(pick for pick in full.picks.counted() if pick.comparison_id == pair.id)
    other.picks.undo(first.id)
    mine = other.picks.save(new_pick(pair, ada.id, "right"))
    other.adapters.activate("mini", None, note="mine")
    report = import_archive(other, path)
    assert sum(report.added.values()) == 0
    assert other.adapters.active("mini") is None
    assert mine.id in {pick.id for pick in other.picks.counted()}


def test_what_contradicts_is_left_out_with_all_below_it(full, other, tmp_path):
    """A studio that shares comparisons and annotators by name, but in which Ada decided otherwise."""
    path = tmp_path / "all.zip"
    old = tmp_path / "old.zip"
    for pick in full.picks.standing():
        full.picks.undo(pick.id)
    export_archive(full, old)
    pair = full.picks.of_comparison(_pair(full))[0]
    full.picks.save(new_pick(full.comparisons.get(pair.comparison_id), pair.annotator_id, "right"))
    export_archive(full, path)
    import_archive(other, old)
    own = other.picks.save(new_pick(other.comparisons.get(pair.comparison_id), pair.annotator_id, "left"))
    report = import_archive(other, path)
    assert report.left_out["picks"] == 1
    assert report.left_out["pick_pairs"] == 1
    assert [pick.id for pick in other.picks.counted()] == [own.id]


def test_second_thoughts_follow(full, other, tmp_path):
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    first = next(pick for pick in full.picks.counted() if pick.reasons)
    second = full.picks.save(new_pick(first.comparison, first.annotator_id, "right"))
    export_archive(full, path)
    report = import_archive(other, path)
    assert report.added["picks"] == 1
    assert sum(report.left_out.values()) == 0
    assert {pick.id for pick in other.picks.counted()} == {pick.id for pick in full.picks.counted()}
    assert pair_scores(other) == pair_scores(full)
    assert other.picks.get(first.id).superseded_by == second.id
    session_id = full.sessions.list()[0].id
    assert other.sessions.progress(session_id) == full.sessions.progress(session_id)


def _pair(store):
    with store.database.read() as session:
        return session.scalar(sa.text("SELECT comparison_id FROM picks WHERE size = 2 LIMIT 1"))


def test_annotators_are_joined_by_name_and_rounds_renumbered(full, other, tmp_path):
    path = tmp_path / "all.zip"
    export_archive(full, path)
    ada = other.people.annotator("Ada")
    _, mine = run_round(other, name="mine")
    import_archive(other, path)
    assert [person.name for person in other.people.annotators()].count("Ada") == 1
    assert other.picks.count() == full.picks.count()
    assert len(other.picks.latest(annotator_id=ada.id)) == 2
    assert [row.number for row in other.rounds.list()] == [2, 1]
    assert other.adapters.active("mini").id == mine.id


def test_a_running_round_comes_in_stopped_and_without_paths(full, other, tmp_path):
    running = full.rounds.create("mini")
    full.rounds.claim("w")
    full.rounds.heartbeat(running.id, "w", checkpoint_path="../../etc/passwd", log_path="/etc/passwd")
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    found = other.rounds.get(running.id)
    assert (found.state, found.checkpoint_path, found.log_path) == ("cancelled", None, None)
    assert "queued" in found.message
    assert other.rounds.claim("w") is None


def rewrite(source, target, change):
    """Copy a zip, with `change(name, content)` giving new (name, content) pairs."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            for changed, content in change(name, old.read(name)):
                new.writestr(changed, content)
    return target


def swap(name, content):
    """A change that replaces one file and leaves the others."""
    return lambda found, old: [(found, content(old) if found == name else old)]


HOSTILE = {
    "climbs out": (lambda name, old: [("../outside.png" if name == "manifest.json" else name, old)], "does not belong"),
    "absolute": (lambda name, old: [("/" + name if name.startswith("media/") else name, old)], "does not belong"),
    "other file": (lambda name, old: [(name.replace(".safetensors", ".html"), old)], "does not belong"),
    "no manifest": (lambda name, old: [] if name == "manifest.json" else [(name, old)], "no archive"),
    "newer": (swap("manifest.json", lambda old: old.replace(b'"format": 1', b'"format": 2')), "format 2"),
    "no json": (swap("tables/people.jsonl", lambda old: b"{"), "people, line 1"),
    "unknown column": (
        swap("tables/people.jsonl", lambda old: old.replace(b'"name"', b'"nom"')),
        "exactly the columns",
    ),
    "wrong kind": (swap("tables/people.jsonl", lambda old: old.replace(b'"Ada"', b"7")), "wrong kind"),
    "too long": (swap("tables/people.jsonl", lambda old: old.replace(b"Ada", b"A" * 300)), "300 characters"),
    "unknown state": (swap("tables/generations.jsonl", lambda old: old.replace(b'"done"', b'"gone"')), "gone"),
    "dangling": (swap("tables/comparisons.jsonl", lambda old: b""), "contradicts itself"),
    "bomb": (
        lambda name, old: [(name, old + b"\n" * (4 << 20) if name == "tables/people.jsonl" else old)],
        "zip bomb",
    ),
    "false name": (
        lambda name, old: [(name, png(77) if name.startswith("media/") and name.endswith("png") else old)],
        "damaged",
    ),
    "no picture": (
        lambda name, old: [(name, b"<svg/>" if name.endswith(".png") else old)],
        "no picture",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_and_damaged_archives_are_refused(exported, other, tmp_path, kind):
    change, words = HOSTILE[kind]
    with pytest.raises(StoreError, match=words):
        import_archive(other, rewrite(exported, tmp_path / "hostile.zip", change))
    assert not (tmp_path / "outside.png").exists()
    # The good one still comes in whole, whatever the bad one had left.
    import_archive(other, exported)
    assert other.picks.count() == 3


def test_archives_that_are_none_or_too_large_are_refused(exported, other, tmp_path):
    with pytest.raises(StoreError, match="are the most"):
        import_archive(other, exported, max_bytes=1000)
    path = tmp_path / "cut.zip"
    path.write_bytes(exported.read_bytes()[:500])
    with pytest.raises(StoreError, match="cannot be read as a zip"):
        import_archive(other, path)


def test_standings_survive(full, other, tmp_path):
    good, bad = add_generation(full, content=[png(21), png(22)]).candidates
    gold = full.comparisons.create([good.id, bad.id], kind="gold", gold_winner_id=good.id)
    full.picks.save(new_pick(gold, full.people.annotator("Ada").id))
    path = tmp_path / "all.zip"
    export_archive(full, path)
    import_archive(other, path)
    assert [pick.standing for pick in other.picks.standing()].count(Standing.GOLD) == 1
