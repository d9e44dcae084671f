"""What the Compare page shows and hides."""

import json

import pytest

from studio.context import Studio
from studio.draft import Draft
from studio.generation import GenerationJobs
from studio.judging import Judging, questions
from studio.model_host import ModelHost
from studio.panels.judging_view import annotator_of, guidelines_html, session_html, stage_value
from studio.panels.reveal import decision_words, reveal_html
from studio.settings import Settings
from studio.store.models import AnnotatorOrigin
from tests.studio.store_samples import add_comparison, add_generation, add_person, new_pick

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def studio(store):
    host = ModelHost("nowhere")
    return Studio(Settings(data=store.folder), store, host, GenerationJobs(store, host))


def report(people):
    row = {"face": 0, "similarity": 0.7, "covered": True, "duplicated": False, "box": [1, 2, 3, 4]}
    return {
        "rows": [{"reference": number, **row} for number in range(people)],
        "face_count": people,
        "count_correct": True,
        "swaps": 0,
        "face_sim": 0.7,
        "pack": "tiny",
        "threshold": 0.3,
        "width": 128,
        "height": 128,
    }


def test_the_stage_is_told_nothing_about_where_pictures_come_from(studio, store):
    comparison = add_comparison(store)
    ada = store.people.annotator("Ada")
    asked = questions(store, Judging(lineup=(comparison.id,)), ada.id)
    value = json.dumps(stage_value(studio, asked, empty="", can_undo=False))
    generation = comparison.candidates[0].generation
    for secret in (generation.schedule, generation.id, generation.prompt.text, "seed", "face"):
        assert secret not in value
    for candidate in comparison.candidates:
        assert studio.media_url(candidate.media_sha256) in value


def test_the_reveal_names_sources_and_escapes_what_people_typed(studio, store):
    _, portrait = add_person(store, HOSTILE)
    generation = add_generation(store, [portrait], schedule="gate-0.3-0.6")
    for candidate in generation.candidates:
        store.generations.save_metrics(candidate.id, face_report=report(1))
    comparison = store.comparisons.create([candidate.id for candidate in generation.candidates])
    ada = store.people.annotator("Ada")
    pick = store.picks.save(new_pick(comparison, ada.id, note=HOSTILE, reasons=["light"], latency_ms=2500))
    html = reveal_html(studio, Judging(), store.picks.get(pick.id))
    assert "gate-0.3-0.6" in html
    assert "base model" in html
    assert "2.5 s" in html
    assert "by tiny" in html  # the face model a similarity was measured with
    assert HOSTILE not in html
    assert "&lt;img" in html


def test_sources_stay_hidden_where_comparisons_come_back(studio, store):
    session = store.sessions.create("again", repeat_share=0.2)
    comparison = add_comparison(store)
    store.sessions.add(session.id, [comparison.id])
    ada = store.people.annotator("Ada")
    (given,) = store.sessions.claim(session.id, ada.id)
    pick = store.picks.save(new_pick(comparison, ada.id, lease_id=given.lease_id))
    html = reveal_html(studio, Judging(session=session.id), store.picks.get(pick.id))
    assert comparison.candidates[0].generation.schedule not in html


def test_decisions_in_letters(store):
    ada = store.people.annotator("Ada")
    generation = add_generation(store, candidates=4)
    comparison = store.comparisons.create([candidate.id for candidate in generation.candidates])
    a, b, c, d = (candidate.id for candidate in comparison.candidates)
    ranked = new_pick(comparison, ada.id, "ranking", shown=[a, b, c, d], ranking=[[c], [a], [b, d]])
    assert decision_words(store.picks.save(ranked)) == "C > A > B = D"
    pair = add_comparison(store)
    assert decision_words(store.picks.save(new_pick(pair, ada.id, "right"))) == "B better than A"


def test_names_and_guidelines_are_text(store):
    session = store.sessions.create(HOSTILE)
    progress = store.sessions.progress(session.id)
    assert HOSTILE not in session_html(session.name, HOSTILE, progress) + guidelines_html(HOSTILE)


def test_who_judges(studio):
    class Request:
        username = "grace"

    draft = Draft(visitor="visitor-1")
    assert annotator_of(studio, Judging(), draft, None).name == "visitor-1"
    assert annotator_of(studio, Judging(annotator="Ada"), draft, None).name == "Ada"
    logged_in = annotator_of(studio, Judging(annotator="Ada"), draft, Request())
    assert (logged_in.name, logged_in.origin) == ("grace", AnnotatorOrigin.LOGIN)
