"""Figures of the Insights page. Each takes what the store counted and says its sample size; None without data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import plotly.graph_objects as go

from studio.store.insights import GateCell, Measured, PositionShare, ThresholdPoint, WinRate

ACCENT, SECOND, GREY = "#0f766e", "#b45309", "#78716c"
SCALE = [[0.0, "#b45309"], [0.5, "#e7e5e4"], [1.0, "#0f766e"]]
"""Losing, even, winning."""
HEIGHT = 320


def picks_over_time(per_day: Sequence[tuple[date, int]]) -> go.Figure | None:
    """Bars of counted picks a day."""
    if not per_day:
        return None
    days, counts = zip(*per_day, strict=True)
    figure = go.Figure(go.Bar(x=days, y=counts, marker_color=ACCENT, hovertemplate="%{x}: %{y} picks<extra></extra>"))
    figure.update_xaxes(type="date", tickformat="%d %b")
    figure.update_yaxes(rangemode="tozero")
    return styled(figure, f"Picks per day (n = {sum(counts)})", "", "picks")


def win_rates(rates: Sequence[WinRate], title: str, names: Mapping[str, str] | None = None) -> go.Figure | None:
    """Bars with 95 % Wilson intervals and the number of pairs above each."""
    rates = [rate for rate in rates if rate.share.value is not None]
    if not rates:
        return None
    names = names or {}
    labels = [names.get(rate.label, rate.label) for rate in rates]
    values = [rate.share.value for rate in rates]
    figure = go.Figure(
        go.Bar(
            x=labels,
            y=values,
            marker_color=ACCENT,
            width=0.5,
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [rate.share.high - rate.share.value for rate in rates],
                "arrayminus": [rate.share.value - rate.share.low for rate in rates],
                "color": GREY,
            },
            customdata=[rate.share.total for rate in rates],
            hovertemplate="%{x}: %{y:.0%} of %{customdata} pairs<extra></extra>",
        )
    )
    for label, rate in zip(labels, rates, strict=True):
        figure.add_annotation(x=label, y=1.06, text=f"n = {rate.share.total}", showarrow=False, font_size=12)
    _even(figure)
    figure.update_xaxes(type="category")
    return styled(figure, title, "", "preferred")


def gate_windows(cells: Sequence[GateCell]) -> go.Figure | None:
    """Heat map over start and end of the window; every cell says its number of pairs."""
    cells = [cell for cell in cells if cell.share.value is not None]
    if not cells:
        return None
    starts = sorted({cell.start for cell in cells})
    ends = sorted({cell.end for cell in cells})
    found = {(cell.start, cell.end): cell.share for cell in cells}
    shares = [[found.get((start, end)) for start in starts] for end in ends]
    figure = go.Figure(
        go.Heatmap(
            x=[f"{start:g}" for start in starts],
            y=[f"{end:g}" for end in ends],
            z=[[share.value if share else None for share in row] for row in shares],
            text=[[f"{share.value:.0%}<br>n = {share.total}" if share else "" for share in row] for row in shares],
            texttemplate="%{text}",
            hovertemplate="window %{x} to %{y}: %{text}<extra></extra>",
            colorscale=SCALE,
            zmin=0,
            zmax=1,
            xgap=2,
            ygap=2,
            colorbar={"tickformat": ".0%", "thickness": 10},
        )
    )
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category")
    pairs = sum(cell.share.total for cell in cells)
    return styled(figure, f"Gate window: preferred (n = {pairs})", "start", "end")


def thresholds(points: Sequence[ThresholdPoint]) -> go.Figure | None:
    """Win rate over the annealing threshold, a line for each form."""
    points = [point for point in points if point.share.value is not None]
    if not points:
        return None
    figure = go.Figure()
    for form, color in (("hold", ACCENT), ("ramp", SECOND)):
        line = sorted((point for point in points if point.form == form), key=lambda point: point.threshold)
        if not line:
            continue
        figure.add_trace(
            go.Scatter(
                x=[point.threshold for point in line],
                y=[point.share.value for point in line],
                mode="lines+markers+text",
                name=form,
                text=[f"n = {point.share.total}" for point in line],
                textposition="top center",
                line_color=color,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [point.share.high - point.share.value for point in line],
                    "arrayminus": [point.share.value - point.share.low for point in line],
                    "color": GREY,
                    "thickness": 1,
                },
                hovertemplate="threshold %{x}: %{y:.0%}, %{text}<extra>" + form + "</extra>",
            )
        )
    _even(figure)
    figure.update_xaxes(range=[0, 1.05])
    pairs = sum(point.share.total for point in points)
    return styled(figure, f"Annealing threshold: preferred (n = {pairs})", "threshold", "preferred")


def similarity_and_aesthetics(measured: Sequence[Measured]) -> go.Figure | None:
    """A point for each candidate that has both measures."""
    if not measured:
        return None
    figure = go.Figure(
        go.Scattergl(
            x=[one.face_sim for one in measured],
            y=[one.aesthetic for one in measured],
            mode="markers",
            marker={"color": ACCENT, "size": 7, "opacity": 0.55},
            hovertemplate="FaceSim %{x:.2f}, aesthetic %{y:.2f}<extra></extra>",
        )
    )
    title = f"Likeness and looks (newest {len(measured)} pictures)"
    return styled(figure, title, "FaceSim", "aesthetic score")


def position_bias(positions: Sequence[PositionShare]) -> go.Figure | None:
    """Where winners stood on the screen; the dotted lines are what no bias would give."""
    if not positions:
        return None
    figure = go.Figure()
    for place in positions:
        label = f"{'ABCD'[place.position]} of {place.size}"
        figure.add_trace(
            go.Bar(
                x=[label],
                y=[place.share.value],
                marker_color=ACCENT,
                width=0.5,
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [place.share.high - place.share.value],
                    "arrayminus": [place.share.value - place.share.low],
                    "color": GREY,
                },
                hovertemplate=f"{label}: %{{y:.0%}} of {place.share.total}<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(x=[label], y=[1 / place.size], mode="markers", marker={"symbol": "line-ew-open", "size": 34,
            "color": SECOND}, hoverinfo="skip")
        )  # fmt: skip
    totals = {place.size: place.share.total for place in positions}
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return styled(figure, f"Where the chosen one stood (n = {sum(totals.values())})", "", "chosen")


def _even(figure: go.Figure) -> None:
    figure.add_hline(y=0.5, line_dash="dot", line_color=GREY, line_width=1)
    figure.update_yaxes(range=[0, 1.12], tickvals=[0, 0.25, 0.5, 0.75, 1], tickformat=".0%")


def styled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    """The common look; `x` and `y` are the titles of the axes."""
    # Transparent, and grey enough to read on light and on dark.
    figure.update_layout(
        title={"text": title, "font_size": 15, "x": 0.02, "xanchor": "left"},
        height=HEIGHT,
        margin={"l": 52, "r": 16, "t": 44, "b": 44},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": GREY, "size": 13, "family": "system-ui, sans-serif"},
        showlegend=len({trace.name for trace in figure.data if trace.name}) > 1,
        legend={"orientation": "h", "y": 1.02, "x": 1, "xanchor": "right", "yanchor": "bottom"},
        dragmode=False,
    )
    figure.update_xaxes(title={"text": x, "font_size": 13}, gridcolor="rgba(120,113,108,0.18)", zeroline=False)
    figure.update_yaxes(title={"text": y, "font_size": 13}, gridcolor="rgba(120,113,108,0.18)", zeroline=False)
    return figure
