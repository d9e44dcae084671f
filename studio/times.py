"""Moments and durations in words."""

from __future__ import annotations

from datetime import datetime


def moment_words(moment: datetime) -> str:
    """Day and time where the server is, such as "26 Nov, 14:02"; the year too when it is another one."""
    local = moment.astimezone()
    return f"{local:%-d %b %Y, %H:%M}" if local.year != datetime.now().year else f"{local:%-d %b, %H:%M}"


def duration_words(seconds: float) -> str:
    """A duration as people say it: "40 s", "6 min", "1 h 20 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
