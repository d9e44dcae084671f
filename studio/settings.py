"""Every setting of the studio in one place: environment (IDGLOW_*), command line, safe defaults.

settings = Settings.from_command_line()     # app.py
settings = Settings(data=tmp_path)          # tests; the environment still counts, the command line does not
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, CliApp, CliImplicitFlag, SettingsConfigDict

from core.precision import Precision

BESIDE_THE_APP = Path(__file__).resolve().parents[1] / "data"
SPACE_VOLUME = Path("/data")


def default_data_folder() -> Path:
    """`data` beside app.py; on a Hugging Face Space the persistent volume, where there is one."""
    on_space = "SPACE_ID" in os.environ and SPACE_VOLUME.is_dir() and os.access(SPACE_VOLUME, os.W_OK)
    return SPACE_VOLUME if on_space else BESIDE_THE_APP


class Settings(BaseSettings):
    """How the studio runs. Each option is also read from the environment, such as IDGLOW_DATA for --data."""

    model_config = SettingsConfigDict(
        env_prefix="IDGLOW_",
        cli_prog_name="app.py",
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    # Where things are
    data: Path = Field(
        default_factory=default_data_folder,
        description="folder of database, pictures and adapters; copying it is the backup",
    )
    database_url: SecretStr | None = Field(
        None,
        description="SQLAlchemy URL such as postgresql+psycopg://user:password@host/name; none: SQLite in --data",
    )

    # Models
    bundle: str = Field("mini", description="models to generate with: a name from the README, or a folder")
    face_pack: Path | None = Field(None, description="folder of an InsightFace pack; the bundle's own if absent")
    allow_download: CliImplicitFlag[bool] = Field(
        False, description="let models be fetched from the Hugging Face hub when they are not on this machine"
    )
    device: str = Field("auto", description="torch device: auto, cpu, cuda, cuda:1, ...")
    precision: Precision = Field("auto", description="on a CPU: float32, bfloat16, or auto, the faster one")
    threads: int = Field(1, ge=1, le=256, description="CPU threads for the models")

    # Page
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 lets other machines in")
    port: int = Field(7860, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    share: CliImplicitFlag[bool] = Field(False, description="open a public gradio.live link; needs --auth")
    auth: SecretStr | None = Field(
        None, description="name:password pairs, separated by commas; better given as IDGLOW_AUTH"
    )
    login: Literal["typed", "huggingface"] = Field(
        "typed", description="how annotators say who they are when --auth is not used"
    )

    # Limits
    max_upload_mb: float = Field(20, gt=0, description="largest file that may be uploaded")
    max_portraits: int = Field(6, ge=1, le=10, description="most people in one picture")
    max_candidates: int = Field(8, ge=1, le=64, description="most candidates of one generation")
    max_side: int = Field(2048, ge=64, description="longest side of a generated picture, in pixels")
    max_steps: int = Field(100, ge=1, description="most denoising steps")
    queue_length: int = Field(32, ge=1, description="most generations that may wait")

    # Training
    worker: CliImplicitFlag[bool] = Field(True, description="train in the background")
    picks_per_round: int = Field(
        40, ge=0, description="new picks that start a training round; 0 starts rounds on request only"
    )
    worker_threads: int = Field(1, ge=1, le=256, description="CPU threads for training")
    round_config: Path | None = Field(
        None, description="TOML file with the settings of training rounds; see python -m trainers.worker --help"
    )
    evaluation_portraits: Path | None = Field(
        None, description="folder of people that rounds are measured on and never trained on; those in assets if absent"
    )

    # Hugging Face
    dataset_repo: str | None = Field(
        None, description="private data set repository (owner/name) that picks are copied to; none if absent"
    )
    dataset_token: SecretStr | None = Field(
        None, description="token for --dataset-repo; better given as IDGLOW_DATASET_TOKEN"
    )

    @field_validator("data", "face_pack", "round_config", "evaluation_portraits", mode="after")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser().absolute()

    @field_validator("auth", mode="after")
    @classmethod
    def _well_formed_auth(cls, auth: SecretStr | None) -> SecretStr | None:
        if auth is not None:
            _parse_auth(auth.get_secret_value())
        return auth

    @model_validator(mode="after")
    def _share_needs_auth(self) -> Self:
        if self.share and self.auth is None and self.login != "huggingface":
            raise ValueError("a public link would show portraits to anybody: give --auth, or --login huggingface")
        return self

    @model_validator(mode="after")
    def _login_needs_a_space(self) -> Self:
        if self.login == "huggingface" and "SPACE_ID" not in os.environ:
            raise ValueError("login with Hugging Face works on a Hugging Face Space only; elsewhere use --auth")
        return self

    @property
    def credentials(self) -> list[tuple[str, str]] | None:
        """(name, password) pairs for Gradio, None without --auth."""
        return None if self.auth is None else _parse_auth(self.auth.get_secret_value())

    @classmethod
    def from_command_line(cls, arguments: Sequence[str] | None = None) -> Self:
        """Read the command line (`sys.argv` when None) over the environment.

        `--help` prints every option and exits. A value that makes no sense ends the program with one sentence each.
        """
        try:
            return CliApp.run(cls, cli_args=None if arguments is None else list(arguments))
        except ValidationError as error:
            raise SystemExit("\n".join(_sentence(problem) for problem in error.errors())) from None


def _parse_auth(text: str) -> list[tuple[str, str]]:
    pairs = []
    for entry in text.split(","):
        name, colon, password = entry.strip().partition(":")
        if not (name and colon and password):
            # The entry itself may be a password and is not repeated.
            raise ValueError("give name:password pairs separated by commas, with no part empty")
        pairs.append((name, password))
    return pairs


def _sentence(problem) -> str:
    place = "".join(f"--{str(part).replace('_', '-')}: " for part in problem["loc"])
    return f"app.py: {place}{problem['msg'].removeprefix('Value error, ')}"
