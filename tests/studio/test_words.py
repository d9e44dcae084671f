"""What the page says about faces: verdicts in words, and nothing a person typed becomes markup."""

from __future__ import annotations

import re
from html import escape

import numpy as np

from studio.words import face_strip, similarity_table, verdict

ROW = {"reference": 0, "face": 0, "similarity": 0.62, "covered": True, "duplicated": False, "box": [10, 10, 50, 60]}


def report(*rows: dict, **changes) -> dict:
    values = {
        "face_sim": 0.62, "coverage": 1.0, "duplicates": 0, "swaps": None, "face_count": len(rows),
        "count_correct": True, "threshold": 0.35, "pack": "some-pack", "width": 256, "height": 256, "rows": list(rows),
    }  # fmt: skip
    return values | changes


def test_every_verdict_has_its_words():
    assert verdict(ROW)[0] == "good"
    assert verdict(ROW | {"covered": False})[0] == "weak"
    assert "missing" in verdict(ROW | {"face": None, "box": None})[1]
    assert "duplicate" in verdict(ROW | {"duplicated": True})[1]


def test_who_stands_on_whose_wrong_side_is_said_of_both():
    left, right = ROW | {"box": [100, 0, 120, 20]}, ROW | {"reference": 1, "box": [10, 0, 30, 20]}
    strip = face_strip(report(left, right), ["Ann", "Bob"], ["/a", "/b"], "/p", order=[0, 1])
    assert "swapped: on the wrong side of Bob" in strip
    assert "swapped: on the wrong side of Ann" in strip
    assert "wrong side" not in face_strip(report(left, right), ["Ann", "Bob"], ["/a", "/b"], "/p", order=[1, 0])
    lost = right | {"covered": False}
    assert "wrong side" not in face_strip(report(left, lost), ["Ann", "Bob"], ["/a", "/b"], "/p", order=[0, 1])


def test_the_matrix_has_a_cell_for_every_person_and_face_and_marks_the_best():
    table = similarity_table(
        ["Ann", "<b>"], ["/a", "/b"], [[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]],
        np.array([[0.1, 0.7, -0.2], [0.3, 0.2, 0.1]]), threshold=0.35, picture_url="/p", size=(64, 64),
    )  # fmt: skip
    assert table.count("<td class=") == 6
    assert 'class="good best" style="--share:0.70">0.70' in table
    assert 'class="weak best" style="--share:0.30">0.30' in table
    assert "<b>" not in table.replace("&lt;b&gt;", "")
    assert "No face" in similarity_table(
        ["Ann"], ["/a"], [], np.zeros((1, 0)), threshold=0.35, picture_url="/p", size=(64, 64)
    )


def test_names_stay_text():
    name = '<img src=x onerror="alert(1)">'
    strip = face_strip(report(ROW), [name], ["/a?x=\"&y='"], '/b"><script>')
    assert "<script" not in strip
    assert escape(name) in strip
    assert name not in strip
    assert strip.count("<img") == 1


def test_the_pack_is_named_where_a_number_stands():
    assert "some-pack" in face_strip(report(ROW), ["Ann"], ["/a"], "/b")


def test_what_was_not_measured_is_absent():
    strip = face_strip(None, [], [], "/b")
    assert "not measured" in strip
    assert not re.search(r"\d\.\d", strip)


def test_wrong_counts_and_swaps_are_said():
    strip = face_strip(report(ROW, count_correct=False, face_count=3, swaps=1), ["Ann"], ["/a"], "/b")
    assert "3 faces for 1 people" in strip
    assert "swapped" in strip


def test_a_portrait_that_is_gone_leaves_its_place_empty():
    assert "portrait of Ann" in face_strip(report(ROW), ["Ann"], ["/a"], "/b")
    gone = face_strip(report(ROW), ["Ann"], [""], "/b")
    assert "portrait of" not in gone
    assert "0.62" in gone
