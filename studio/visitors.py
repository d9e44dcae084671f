"""Who is at the other end of a request, where one can log in."""

from __future__ import annotations

import gradio as gr

from studio.store.models import AnnotatorOrigin


def login_of(request: gr.Request | None) -> tuple[str, AnnotatorOrigin] | None:
    """Name and kind of login: the studio's own (`--auth`), or Hugging Face's (`--login huggingface`); None without."""
    if request is None:
        return None
    if request.username:
        return request.username, AnnotatorOrigin.LOGIN
    # Gradio keeps what Hugging Face said in the signed session cookie, which a visitor cannot write.
    session = request.request.scope.get("session") if request.request is not None else None
    user = ((session or {}).get("oauth_info") or {}).get("userinfo") or {}
    name = user.get("preferred_username")
    return (name, AnnotatorOrigin.HUGGINGFACE) if name else None
