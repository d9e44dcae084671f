"""Who logged in, by either way."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from studio.store.models import AnnotatorOrigin
from studio.visitors import login_of


def request(username=None, session=None):
    return gr.Request(username=username, request=SimpleNamespace(scope={} if session is None else {"session": session}))


def test_the_studios_own_login_and_that_of_hugging_face():
    signed_in = {"oauth_info": {"userinfo": {"preferred_username": "grace"}}}
    assert login_of(request("ada")) == ("ada", AnnotatorOrigin.LOGIN)
    assert login_of(request(session=signed_in)) == ("grace", AnnotatorOrigin.HUGGINGFACE)


def test_nobody_logged_in():
    assert login_of(None) is None
    assert login_of(request()) is None
    assert login_of(request(session={})) is None
    assert login_of(request(session={"oauth_info": None})) is None
