"""Figures of the Training page. Each takes what a round logged; None where it logged nothing of the kind."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from studio.plots import ACCENT, GREY, SECOND, styled
from studio.store.models import RoundStep

MOST_POINTS = 400
"""More than a plot has pixels for would only make the page slow."""
MEAN_OF = 20
"""Steps in the running mean: single steps see a handful of pairs and jump about."""


def loss(steps: Sequence[RoundStep]) -> go.Figure | None:
    """The loss of every step, and its running mean."""
    return _figure(steps, f"Loss (step {_last(steps)})", "loss", {"loss": ("loss", ACCENT)})


def distances(steps: Sequence[RoundStep]) -> go.Figure | None:
    """d_w and d_l: how much worse the policy is than its reference at chosen and at rejected pictures."""
    figure = _figure(
        steps,
        "Error beside the reference policy",
        "below 0: better",
        {"d_w": ("chosen", ACCENT), "d_l": ("rejected", SECOND)},
    )
    if figure is not None:
        figure.add_hline(y=0, line_dash="dot", line_color=GREY, line_width=1)
    return figure


def shares(steps: Sequence[RoundStep]) -> go.Figure | None:
    """Implicit accuracy, and the share of wins that only come from the rejected side getting worse."""
    figure = _figure(
        steps,
        "Pairs told apart",
        "share of pairs",
        {"implicit_accuracy": ("won", ACCENT), "rejected_only_share": ("by spoiling only", SECOND)},
    )
    if figure is not None:
        figure.add_hline(y=0.5, line_dash="dot", line_color=GREY, line_width=1)
        figure.update_yaxes(range=[0, 1.05], tickformat=".0%")
    return figure


def gradient(steps: Sequence[RoundStep]) -> go.Figure | None:
    """Norm of the gradient before it is clipped."""
    return _figure(steps, "Gradient norm", "norm", {"gradient_norm": ("gradient", ACCENT)})


def _figure(steps: Sequence[RoundStep], title: str, y: str, wanted: dict[str, tuple[str, str]]) -> go.Figure | None:
    figure = go.Figure()
    for metric, (name, color) in wanted.items():
        logged = [(row.step, row.metrics[metric]) for row in steps if row.metrics.get(metric) is not None]
        if not logged:
            continue
        numbers, values = zip(*logged, strict=True)
        every = -(-len(values) // MOST_POINTS)
        means = _running_mean(values)
        figure.add_trace(
            go.Scatter(
                x=numbers[::every],
                y=values[::every],
                mode="markers",
                marker={"color": color, "size": 4, "opacity": 0.3},
                showlegend=False,
                hovertemplate=f"step %{{x}}: {name} %{{y:.4g}}<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=numbers[::every],
                y=means[::every],
                mode="lines",
                name=name,
                line={"color": color, "width": 2},
                hovertemplate=f"step %{{x}}: {name} %{{y:.4g}}, mean of {MEAN_OF}<extra></extra>",
            )
        )
    if not figure.data:
        return None
    figure = styled(figure, title, "step", y).update_yaxes(exponentformat="power")
    if len(wanted) == 1:
        return figure.update_layout(height=260)
    # Below the title, which a phone has no room beside.
    legend = {"x": 0, "xanchor": "left", "y": 1.0, "yanchor": "bottom"}
    return figure.update_layout(height=280, margin={"t": 64}, legend=legend)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean of each value with up to MEAN_OF - 1 before it."""
    means, total = [], 0.0
    for index, value in enumerate(values):
        total += value - (values[index - MEAN_OF] if index >= MEAN_OF else 0.0)
        means.append(total / min(index + 1, MEAN_OF))
    return means


def _last(steps: Sequence[RoundStep]) -> int:
    return steps[-1].step if steps else 0
