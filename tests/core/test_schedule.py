from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from core.schedule import IdentitySchedule

unit = st.floats(0, 1)
schedules = st.one_of(
    st.just(IdentitySchedule.off()),
    st.just(IdentitySchedule.constant()),
    st.builds(IdentitySchedule.anneal, st.floats(0, 1, exclude_min=True), st.just("hold")),
    st.builds(IdentitySchedule.anneal, st.floats(0, 1, exclude_max=True), st.just("ramp")),
    st.tuples(unit, unit).map(lambda window: IdentitySchedule.gate(min(window), max(window))),
)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("off", [0, 0, 0, 0, 0]),
        ("constant", [1, 1, 1, 1, 1]),
        ("anneal-hold-0.5", [0, 0.5, 1, 1, 1]),
        ("anneal-hold-1.0", [0, 0.25, 0.5, 0.75, 1]),
        ("anneal-ramp-0.5", [0, 0, 0, 0.5, 1]),
        ("anneal-ramp-0.0", [0, 0.25, 0.5, 0.75, 1]),
        ("gate-0.25-0.5", [0, 1, 1, 0, 0]),
        ("gate-0.5-0.5", [0, 0, 1, 0, 0]),
        ("gate-0.0-1.0", [1, 1, 1, 1, 1]),
    ],
)
def test_weights_by_hand(text: str, weights: list[float]):
    schedule = IdentitySchedule.parse(text)
    sigmas = [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [schedule.weight(sigma) for sigma in sigmas] == weights
    assert schedule.weight(torch.tensor(sigmas)).tolist() == weights
    assert str(schedule) == text


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("start", "end"), [(0.3, 0.6), (0.1, 0.7), (1 / 3, 2 / 3)])
def test_the_gate_is_closed_in_every_precision(dtype: torch.dtype, start: float, end: float):
    weights = IdentitySchedule.gate(start, end).weight(torch.tensor([start, end, 0.0, 1.0], dtype=dtype))
    assert weights.dtype == dtype
    assert weights.tolist() == [1, 1, 0, 0]


def test_a_schedulers_sigma_on_the_edge_is_inside_the_gate():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.05, 20))
    inside = [sigma for sigma in scheduler.sigmas.tolist() if IdentitySchedule.gate(0.3, 0.6).weight(sigma)]
    assert np.round(inside, 6).tolist() == [0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3]


@given(schedules, st.lists(unit, min_size=1, max_size=8))
def test_weights_are_in_the_unit_interval_and_a_tensor_agrees_with_floats(
    schedule: IdentitySchedule, sigmas: list[float]
):
    one_by_one = [schedule.weight(sigma) for sigma in sigmas]
    assert all(isinstance(weight, float) and 0 <= weight <= 1 for weight in one_by_one)
    tensor = torch.tensor(sigmas, dtype=torch.float64)
    assert schedule.weight(tensor).tolist() == one_by_one
    assert schedule.weight(tensor.reshape(-1, 1)).shape == (len(sigmas), 1)


@given(schedules)
def test_float32_weights_follow_float64(schedule: IdentitySchedule):
    sigmas = torch.linspace(0, 1, 41)
    expected = schedule.weight(sigmas.double()).float()
    torch.testing.assert_close(schedule.weight(sigmas), expected)


@given(schedules.filter(lambda schedule: schedule.mode == "anneal"))
def test_annealing_never_grows_towards_the_clean_end(schedule: IdentitySchedule):
    weights = schedule.weight(torch.linspace(0, 1, 101, dtype=torch.float64))
    assert (weights.diff() >= 0).all()
    assert weights[0] == 0
    assert weights[-1] == 1


@given(schedules)
def test_text_and_json_give_the_same_schedule_back(schedule: IdentitySchedule):
    text = str(schedule)
    assert IdentitySchedule.parse(text) == schedule
    assert IdentitySchedule.from_json(json.loads(json.dumps(schedule.to_json()))) == schedule
    assert len(text) <= 60
    assert set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-")


def test_text_and_json_forms():
    assert str(IdentitySchedule.gate()) == "gate-0.3-0.6"
    assert str(IdentitySchedule.anneal(0.4)) == "anneal-hold-0.4"
    assert IdentitySchedule.gate().to_json() == {"mode": "gate", "start": 0.3, "end": 0.6}
    assert IdentitySchedule.anneal(0.4, "ramp").to_json() == {
        "mode": "anneal",
        "threshold": 0.4,
        "form": "ramp",
    }
    assert IdentitySchedule.off().to_json() == {"mode": "off"}


def test_whole_numbers_and_negative_zero_have_one_form():
    assert IdentitySchedule.gate(0, 1) == IdentitySchedule.gate(-0.0, np.float64(1))
    assert str(IdentitySchedule.gate(-0.0, 1)) == "gate-0.0-1.0"


@given(schedules, st.integers(2, 200))
def test_the_curve_has_the_weights_and_the_edges(schedule: IdentitySchedule, points: int):
    curve = schedule.curve(points)
    assert curve.sigmas.shape == curve.weights.shape
    assert curve.sigmas[0] == 0
    assert curve.sigmas[-1] == 1
    assert (np.diff(curve.sigmas) > 0).all()
    assert len(curve.sigmas) >= points
    assert curve.weights.tolist() == [schedule.weight(sigma) for sigma in curve.sigmas.tolist()]
    edges = {edge for edge in (schedule.threshold, schedule.start, schedule.end) if edge is not None}
    assert edges <= set(curve.sigmas.tolist())


def test_a_schedule_cannot_be_changed_and_can_be_a_key():
    schedule = IdentitySchedule.gate()
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.start = 0.1
    assert {schedule: 1}[IdentitySchedule.gate(0.3, 0.6)] == 1


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"mode": "gated"}, "'gated' is unknown"),
        ({"mode": "gate", "start": 0.7, "end": 0.6}, "starts at 0.7 and ends at 0.6"),
        ({"mode": "gate", "start": -0.1, "end": 0.6}, "start is -0.1"),
        ({"mode": "gate", "start": 0.1, "end": 1.1}, "end is 1.1"),
        ({"mode": "gate", "start": math.nan, "end": 0.6}, "start is nan"),
        ({"mode": "gate", "start": 0.1, "end": math.inf}, "end is inf"),
        ({"mode": "gate", "start": "0.1", "end": 0.6}, "start is '0.1'"),
        ({"mode": "gate", "start": False, "end": True}, "start is False"),
        ({"mode": "gate", "start": 0.3}, "end is None"),
        ({"mode": "gate", "start": 0.3, "end": 0.6, "threshold": 0.4}, "has no threshold"),
        ({"mode": "anneal", "threshold": 0.4}, "form None is unknown"),
        ({"mode": "anneal", "threshold": 0.4, "form": "step"}, "'step' is unknown"),
        ({"mode": "anneal", "form": "hold"}, "threshold is None"),
        ({"mode": "anneal", "threshold": 0.0, "form": "hold"}, "divides by it"),
        ({"mode": "anneal", "threshold": 1.0, "form": "ramp"}, "divides by 1 - threshold"),
        ({"mode": "anneal", "threshold": 0.4, "form": "hold", "start": 0.1}, "has no start"),
        ({"mode": "off", "end": 0.0}, "has no end"),
        ({"mode": "constant", "form": "hold"}, "has no form"),
    ],
)
def test_bad_fields_are_refused(fields: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        IdentitySchedule(**fields)
    with pytest.raises(ValueError, match=sentence):
        IdentitySchedule.from_json(fields)


@pytest.mark.parametrize(
    "values", [None, "gate", [], {}, {"start": 0.1}, {"mode": "off", "strength": 1}, {"mode": "off", 3: 1}]
)
def test_bad_json_is_refused(values: object):
    with pytest.raises(ValueError, match="An identity schedule"):
        IdentitySchedule.from_json(values)


@pytest.mark.parametrize(
    "text",
    [
        *("", "Off", "off ", "off\n", "gate", "gate-0.3", "gate-0.3-0.6-", "gate--0.3-0.6", "gate-.3-.6"),
        *("gate-nan-0.6", "gate-٣-0.6", "anneal-0.4", None, 3),
    ],
)
def test_other_text_is_refused(text: object):
    with pytest.raises(ValueError, match="is no identity schedule"):
        IdentitySchedule.parse(text)


@pytest.mark.parametrize("text", ["gate-0.7-0.6", "gate-0.3-1.5", "anneal-step-0.4", "anneal-hold-0.0"])
def test_well_formed_text_of_an_impossible_schedule_is_refused(text: str):
    with pytest.raises(ValueError, match=r"start|end|form|threshold"):
        IdentitySchedule.parse(text)


@pytest.mark.parametrize(
    "sigma", [-0.01, 1.01, math.nan, "0.5", None, True, torch.tensor([0.5, math.nan]), torch.tensor([1])]
)
@pytest.mark.parametrize("text", ["off", "constant", "anneal-hold-0.4", "anneal-ramp-0.4", "gate-0.3-0.6"])
def test_a_bad_sigma_is_refused(text: str, sigma: object):
    with pytest.raises(ValueError, match="sigma"):
        IdentitySchedule.parse(text).weight(sigma)


def test_a_curve_of_one_point_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        IdentitySchedule.off().curve(1)
