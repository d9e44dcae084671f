"""What the Training page shows and does, on rounds made through the store."""

import re
from dataclasses import replace
from datetime import timedelta

import gradio as gr
import pytest
import sqlalchemy as sa

from studio.context import Studio
from studio.generation import GenerationJobs
from studio.model_host import ModelHost
from studio.panels import training_layout, training_values
from studio.panels.adapter_duel import duel_of, line_up
from studio.panels.adapter_history import History
from studio.panels.evaluation_view import evaluation_html, likeness_words
from studio.panels.round_view import log_tail, pairs_html, round_html
from studio.panels.training_values import everything, facts_html, mark, next_html, what_changed
from studio.round_control import require_operator, shown_round, start_round
from studio.settings import Settings
from studio.store import StoreError
from studio.store.models import Outcome, Round, RoundState, utc_now
from studio.store.round_pairs import PairCounts
from tests.studio.picture_bytes import png
from tests.studio.round_samples import WORKER, add_picks, an_evaluation, finished_round, log, some_pairs, training_round
from tests.studio.store_samples import add_generation, new_pick

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def ready_host(bundle_folder):
    # No face pack: what needs faces is absent, and picks count all the same.
    host = ModelHost(bundle_folder, face_pack=bundle_folder / "no-pack", device="cpu", threads=1)
    host.start()
    host.wait(120)
    return host


@pytest.fixture
def page(studio):
    with gr.Blocks():
        return training_layout.build(studio, "secret")


@pytest.fixture
def ada(store):
    return store.people.annotator("Ada").id


def training(store, **settings):
    return training_round(store, bundle="tiny", **settings)


def finished(store, state="promoted", **settings):
    return finished_round(store, state, bundle="tiny", **settings)


def text(html):
    return re.sub(r"<[^>]+>", " ", html)


def test_an_empty_studio_says_what_a_round_is_and_has_no_timer(studio, page):
    values = everything(studio, page, None)
    assert "No round yet" in values[page.round]
    assert values[page.timer].active is False
    assert values[page.curves]["visible"] is False
    assert "base model" in text(values[page.facts])
    assert "not yet" in text(values[page.facts])
    assert "Use this" not in values[page.history]  # the base model is in use
    assert "from the beginning" in values[page.activations]


def test_a_studio_without_its_models_says_why(store):
    host = ModelHost(store.folder / "nowhere")
    broken = Studio(Settings(data=store.folder, bundle="/nowhere"), store, host, GenerationJobs(store, host))
    with gr.Blocks():
        panel = training_layout.build(broken, "secret")
    values = everything(broken, panel, None)
    assert "Nothing can be trained" in values[panel.next]
    assert values[panel.start]["interactive"] is False
    with pytest.raises(StoreError, match="Nothing can be trained"):
        start_round(broken, "somebody")


def test_a_running_round_shows_progress_curves_and_log(studio, store, page):
    add_picks(store, 6, bundle="tiny")
    row = training(store, pairs=some_pairs(store))
    values = everything(studio, page, None)
    assert values[page.timer].active is True
    assert "Step 60 of 100, about 3 min left" in text(values[page.round])
    assert (values[page.pause]["visible"], values[page.resume]["visible"], values[page.cancel]["visible"]) == (
        True,
        False,
        True,
    )
    assert values[page.start]["interactive"] is False
    assert "Round 1 has to end first" in values[page.next]
    for name, traces in (("loss", 2), ("distances", 4), ("shares", 4), ("gradient", 2)):
        assert len(values[page.plots[name]]["value"].data) == traces
    assert "step 60 of 100" in values[page.log]
    assert "4 pairs used, from 4 picks" in text(values[page.pairs])
    assert "2 pairs dropped" in text(values[page.pairs])
    assert "annotators disagree" in values[page.pairs]
    for pair in store.rounds.pairs(row.id, kept=True):
        assert studio.media_url(pair.chosen_sha256) in values[page.pairs]


def test_the_timer_draws_what_has_changed_and_nothing_else(studio, store, page):
    assert mark(studio, None) == mark(studio, None)
    row = training(store)
    seen = mark(studio, None)
    assert what_changed(studio, page, None, seen) == {page.seen: gr.skip()}
    log(store, row.id, range(61, 63))
    store.rounds.heartbeat(row.id, WORKER, progress={"step": 62, "steps": 100})
    changed = what_changed(studio, page, None, seen)
    assert "Step 62 of 100" in changed[page.round]
    assert page.history not in changed  # the costly part waits for a round to begin, move on or end
    store.rounds.ask(row.id, "pause")
    assert page.history in what_changed(studio, page, None, changed[page.seen])
    store.rounds.ask(row.id, "run")
    assert page.history not in what_changed(studio, page, None, changed[page.seen])
    store.rounds.advance(row.id, WORKER, "evaluating")
    assert page.history in what_changed(studio, page, None, changed[page.seen])


def test_a_round_is_asked_for_on_top_of_what_is_in_use_and_one_at_a_time(studio, store, ada):
    _, adapter = finished(store, name="first")
    row = start_round(studio, ada)
    assert (row.bundle, row.parent_adapter_id, row.requested_by) == ("tiny", adapter.id, ada)
    with pytest.raises(StoreError, match="Round 2 is queued"):
        start_round(studio, ada)


def test_the_round_on_show_is_the_chosen_one_then_the_live_one_then_the_newest(studio, store):
    assert shown_round(studio, None) is None
    first, _ = finished(store, name="first")
    second, _ = finished(store, "candidate", name="second")
    assert shown_round(studio, None).id == second.id
    assert shown_round(studio, first.id).id == first.id
    live = training(store)
    assert shown_round(studio, None).id == live.id
    assert shown_round(studio, "0" * 32).id == live.id


@pytest.mark.parametrize(
    ("change", "worker", "words"),
    [
        ({"lease_owner": None, "lease_expires_at": None, "heartbeat_at": None}, True, "Waiting for a worker."),
        ({"lease_owner": None, "lease_expires_at": None, "heartbeat_at": None}, False, "run python -m trainers.worker"),
        ({"lease_owner": None, "lease_expires_at": None}, True, "Waiting for a worker."),
        ({"lease_expires_at": -300, "heartbeat_at": -360}, True, "last heard of 6 min ago"),
        ({"request": "pause", "lease_expires_at": None}, True, "Paused. Resume goes on"),
        ({"request": "pause"}, True, "Pausing after the step"),
        ({"request": "cancel"}, True, "Cancelling after the step"),
    ],
)
def test_a_round_that_does_not_move_says_why(store, change, worker, words):
    row, now = training(store), utc_now()
    moved = {
        name: now + timedelta(seconds=value) if isinstance(value, int) else value for name, value in change.items()
    }
    with store.database.write() as session:
        session.execute(sa.update(Round).where(Round.id == row.id).values(**moved))
    assert words in text(round_html(store.rounds.get(row.id), "base model", now=now, worker=worker))


def test_an_ended_round_shows_its_evaluation_with_pack_cases_and_intervals(studio, store, page):
    finished(store, name="first")
    values = everything(studio, page, None)
    assert values[page.timer].active is False
    shown = text(values[page.evaluation])
    assert "Faces by tiny" in shown
    assert "12 cases, 12 pictures a side, 20 steps, identity guidance 1, same seeds" in shown
    assert "FaceSim" in shown
    assert values[page.pause]["visible"] is False
    assert values[page.cases].count("<figure>") == 3
    assert "before · FaceSim 0.41" in text(values[page.cases])


def test_before_and_after_stand_beside_whom_they_should_show(studio, store, page, tmp_path):
    finished(store, name="first")
    assert "<img" in everything(studio, page, None)[page.cases]
    assert "data:image/" not in everything(studio, page, None)[page.cases]  # the people are gone from the folder
    for number in range(3):
        (tmp_path / f"person-{number}.png").write_bytes(png(number, 64))
    settings = Settings(data=store.folder, bundle=studio.settings.bundle, evaluation_portraits=tmp_path)
    html = everything(replace(studio, settings=settings), page, None)[page.cases]
    shown = re.findall(r'src="(data:image/[^"]+)" alt="(image \d)"', html)
    assert [words for _, words in shown] == ["image 1", "image 2"] * 3
    assert len({url for url, _ in shown}) == 2


def test_every_metric_is_a_row_and_its_interval_is_drawn_inside_the_picture():
    evaluation = an_evaluation()
    html = evaluation_html(evaluation, before=HOSTILE, after="first")
    assert HOSTILE not in html
    assert html.count("<tr") == 1 + len(evaluation["changes"])
    for row in evaluation["changes"]:
        assert f"{row['low']:+.3f} to {row['high']:+.3f}" in html
    places = [float(place) for place in re.findall(r'(?:x1|x2|cx)="([\d.]+)"', html)]
    assert min(places) >= 0
    assert max(places) <= 160
    kinds = dict(re.findall(r'<tr class="(\w+)"><th scope="row">([^<]+)', html))
    assert "better" in kinds
    assert likeness_words(evaluation).startswith("FaceSim 0.4")


def test_what_was_not_measured_is_absent():
    evaluation = an_evaluation() | {"changes": [], "face_pack": None}
    assert "Nothing could be measured" in evaluation_html(evaluation, before="a", after="b")
    assert "No face pack" in evaluation_html(evaluation, before="a", after="b")
    assert evaluation_html(None, before="a", after="b") == ""
    assert likeness_words(None) == ""
    single = an_evaluation(cases=1)
    assert "too few cases" in evaluation_html(single, before="a", after="b")


def test_counts_of_pairs_without_any():
    nothing = pairs_html(PairCounts(kept=0, dropped=0, picks=0), {}, {})
    assert "Nothing can be trained on" in nothing
    assert "Nothing was dropped" in nothing
    assert pairs_html(None, {}, {}) == ""
    assert HOSTILE not in pairs_html(PairCounts(kept=0, dropped=1, picks=0), {}, {HOSTILE: 1})


def test_the_preview_waits_for_the_models(studio, bundle_folder):
    host = ModelHost(bundle_folder, face_pack=bundle_folder / "no-pack", device="cpu", threads=1)
    host.start()
    assert "Nothing can be trained on" in training_values.preview_html(replace(studio, host=host))


def test_the_preview_says_why_there_are_no_models(studio):
    host = ModelHost(studio.store.folder / "nowhere", device="cpu")
    host.start()
    assert "could not be read" in text(training_values.preview_html(replace(studio, host=host)))


def test_the_preview_says_what_a_round_would_use_and_stores_nothing(studio, store, ready_host, ada):
    studio = replace(studio, host=ready_host)
    assert "Nothing can be trained on" in training_values.preview_html(studio)
    add_picks(store, 5, bundle="tiny")
    pair = add_generation(store, bundle="tiny", content=[png(100), png(101)])
    comparison = store.comparisons.create([candidate.id for candidate in pair.candidates])
    store.picks.save(new_pick(comparison, ada, Outcome.TIE))
    html = training_values.preview_html(studio)
    assert "5 pairs used, from 5 picks" in text(html)
    assert "1 pair dropped" in text(html)
    assert html.count("<figure>") == 5
    assert store.rounds.list() == []


def test_picks_between_adapters_start_no_round_and_are_not_trained_on(studio, store, ready_host, ada):
    studio = replace(studio, host=ready_host)
    _, first = finished(store, name="first")
    for comparison in store.comparisons.get_many(line_up(store, duel_of(store, first.id), ada)):
        store.picks.save(new_pick(comparison, ada))
    assert store.rounds.new_picks("tiny") == 0
    html = training_values.preview_html(studio)
    assert "Nothing can be trained on" in html
    assert "held out for evaluation" in html


def test_the_log_is_read_from_its_end_and_from_nowhere_else(tmp_path):
    (tmp_path / "log").write_text("".join(f"line {number}\n" for number in range(5000)))
    tail = log_tail(tmp_path, "log")
    assert tail.splitlines()[-1] == "line 4999"
    assert len(tail) <= 12_000
    assert tail.splitlines()[0].startswith("line ")
    assert log_tail(tmp_path / "data", "../log") == ""
    assert log_tail(tmp_path, None) == log_tail(tmp_path, "absent") == ""


def test_visitors_of_a_public_studio_look_only(studio, store, page, monkeypatch):
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    add_picks(store, 6, bundle="tiny")
    row = training(store, pairs=some_pairs(store))
    values = everything(studio, page, None)
    assert values[page.cancel]["visible"] is False
    assert 'data-action="use"' not in values[page.history]
    assert studio.media_url(store.rounds.pairs(row.id)[0].chosen_sha256) not in values[page.pairs]
    with pytest.raises(StoreError, match="whoever runs"):
        require_operator(studio)


def test_what_starts_the_next_round(studio, store):
    add_picks(store, 3, bundle="tiny")
    assert "3 new picks" in text(next_html(studio, "tiny", []))
    assert "by itself at 40" in next_html(studio, "tiny", [])
    asked = Studio(Settings(data=store.folder, picks_per_round=0), store, studio.host, studio.jobs)
    assert "on request only" in next_html(asked, "tiny", [])
    off = Studio(Settings(data=store.folder, worker=False), store, studio.host, studio.jobs)
    assert "python -m trainers.worker" in next_html(off, "tiny", [])
    assert "3 " in text(facts_html(studio, History.read(store, "tiny"), "tiny"))


def test_how_long_the_last_round_took_is_said_before_the_next(studio, store):
    assert "The last one took" not in next_html(studio, "tiny", [training(store)])
    store.rounds.finish(store.rounds.list()[0].id, WORKER, "cancelled", message="Cancelled.")
    finished(store, name="first")
    assert "The last one took" in next_html(studio, "tiny", store.rounds.list())


def test_what_happened_to_a_round_in_one_word(store):
    row, _ = finished(store, "rejected", name="first")
    html = round_html(row, "base model", now=utc_now(), worker=True)
    assert row.state is RoundState.REJECTED
    assert 'class="badge rejected">rejected' in html
    assert "<progress" not in html
