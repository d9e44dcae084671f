"""The studio's settings reach its worker, secrets not on the command line."""

from __future__ import annotations

from pathlib import Path

from studio.settings import Settings
from studio.worker_process import WorkerProcess
from trainers.worker import argument_parser


def options_of(**settings):
    command = WorkerProcess(Settings(**settings)).command()
    assert command[1:3] == ["-m", "trainers.worker"]
    return argument_parser().parse_args(command[3:])


def test_the_worker_gets_the_settings_of_the_studio(tmp_path):
    found = options_of(
        data=tmp_path,
        bundle="qwen-image-2.1",
        face_pack="pack",
        device="cuda:1",
        worker_threads=3,
        picks_per_round=7,
        round_config="rounds.toml",
        evaluation_portraits="people",
    )
    assert (found.data, found.bundle, found.device) == (tmp_path, "qwen-image-2.1", "cuda:1")
    assert (found.threads, found.picks_per_round, found.end_with_stdin, found.once) == (3, 7, True, False)
    here = Path.cwd()
    paths = (found.face_pack, found.config, found.evaluation_portraits)
    assert paths == (here / "pack", here / "rounds.toml", here / "people")


def test_what_is_not_set_is_left_to_the_worker(tmp_path, monkeypatch):
    monkeypatch.delenv("IDGLOW_DATABASE_URL", raising=False)
    ours, plain = options_of(data=tmp_path), argument_parser().parse_args(["--data", str(tmp_path), "--end-with-stdin"])
    assert ours == plain


def test_passwords_stay_off_the_command_line(tmp_path):
    process = WorkerProcess(Settings(data=tmp_path, database_url="postgresql+psycopg://u:secret@h/d"))
    assert not any("secret" in part for part in process.command())
    assert "secret" in process.environment()["IDGLOW_DATABASE_URL"]
