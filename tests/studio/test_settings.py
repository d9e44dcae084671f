"""Settings: defaults are safe, the command line wins over the environment, nonsense ends with a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from studio import settings
from studio.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in Settings.model_fields:
        monkeypatch.delenv(f"IDGLOW_{name.upper()}", raising=False)
    monkeypatch.delenv("SPACE_ID", raising=False)


def test_defaults_keep_to_this_machine():
    found = Settings()
    assert found.host == "127.0.0.1"
    assert not found.share
    assert not found.allow_download
    assert found.credentials is None
    assert found.data == ROOT / "data"


def test_command_line_wins_over_environment(monkeypatch):
    monkeypatch.setenv("IDGLOW_PORT", "9000")
    monkeypatch.setenv("IDGLOW_BUNDLE", "qwen-image-2.1")
    found = Settings.from_command_line(["--port", "9001", "--no-worker", "--data", "here"])
    assert (found.port, found.bundle, found.worker) == (9001, "qwen-image-2.1", False)
    assert found.data == Path.cwd() / "here"


def test_an_empty_variable_is_no_value(monkeypatch):
    monkeypatch.setenv("IDGLOW_FACE_PACK", "")
    assert Settings().face_pack is None


def test_a_space_keeps_its_data_on_the_volume(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "SPACE_VOLUME", tmp_path)
    assert Settings().data != tmp_path
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    assert Settings().data == tmp_path
    monkeypatch.setattr(settings, "SPACE_VOLUME", tmp_path / "absent")
    assert Settings().data == ROOT / "data"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port: "),
        (["--max-candidates", "0"], "--max-candidates: "),
        (["--share"], "--auth"),
        (["--auth", "ada"], "name:password"),
        (["--auth", "ada:"], "name:password"),
    ],
)
def test_nonsense_ends_with_one_sentence(arguments, words):
    with pytest.raises(SystemExit) as ended:
        Settings.from_command_line(arguments)
    message = str(ended.value)
    assert words in message
    assert message.startswith("app.py: ")
    assert len(message.splitlines()) == 1


def test_secrets_are_not_repeated():
    with pytest.raises(SystemExit) as ended:
        Settings.from_command_line(["--auth", "ada:,secret"])
    assert "secret" not in str(ended.value)
    found = Settings.from_command_line(["--auth", "ada:lovelace,bob:x:y", "--database-url", "postgresql://u:pw@h/d"])
    assert found.credentials == [("ada", "lovelace"), ("bob", "x:y")]
    assert "lovelace" not in repr(found)
    assert "pw" not in repr(found)


def test_help_names_every_option():
    command = [sys.executable, "-c", "from studio.settings import Settings; Settings.from_command_line(['--help'])"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in Settings.model_fields:
        assert f"--{name.replace('_', '-')}" in done.stdout
