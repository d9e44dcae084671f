"""What every panel works on, made once at start: settings, store, models, jobs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from core.backbones.cards import BundleError, find_card
from studio.generation import GenerationJobs
from studio.hub_copies import HubCopies
from studio.model_host import ModelHost
from studio.settings import Settings
from studio.store import Store

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, eq=False)
class Studio:
    """The running application behind its page."""

    settings: Settings
    store: Store
    host: ModelHost
    jobs: GenerationJobs
    copies: HubCopies | None = None
    """None where no repository is configured."""

    @property
    def sees_everything(self) -> bool:
        """Whether a visitor may look at what others made: where everybody logged in, or nobody else can get here.

        Elsewhere (a public Space, an open port) each browser sees what it made itself.
        """
        settings = self.settings
        local = settings.host in LOOPBACK and not settings.share and "SPACE_ID" not in os.environ
        return local or settings.credentials is not None

    @property
    def most_people(self) -> int:
        """How many people fit in one picture: what the settings allow and the bundle can take, where it is known."""
        try:
            return min(self.settings.max_portraits, find_card(self.settings.bundle).max_references)
        except (BundleError, ValueError):  # the header says what is wrong with the bundle
            return self.settings.max_portraits

    def media_url(self, sha256: str) -> str:
        """Where the browser finds a stored picture: names are hashes, so only who was shown one can ask for it."""
        return file_url(self.store.media.path(sha256))


def file_url(path: Path) -> str:
    """The address under which Gradio serves a file of an allowed folder."""
    return f"/gradio_api/file={quote(str(path))}"
