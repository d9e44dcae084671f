"""Everything the studio remembers: one `Store` over a database and a folder of files.

    store = Store.open(Path("data"))
    candidate = store.generations.candidate(candidate_id)
    store.picks.save(NewPick(...))

Rows come back detached: what a docstring says is loaded can be read, anything else raises. Changes go through the
methods, each of them one short transaction that is on the disk when the method returns. Errors are `StoreError`s made
for people. The store is safe to share between threads; each process opens its own.
"""

from __future__ import annotations

import random
from pathlib import Path

from studio.store.adapters import Adapters, NewAdapter, Origin
from studio.store.comparisons import Comparisons
from studio.store.deletion import Deletion, Deletions
from studio.store.engine import Database, StoreError, migrate
from studio.store.gallery import GalleryFilter
from studio.store.generations import Generations
from studio.store.insights import Insights
from studio.store.labelling import Assignment, Progress, Sessions
from studio.store.media import MediaStore
from studio.store.new_generations import NewCandidate, NewGeneration
from studio.store.people import NewPortrait, People
from studio.store.picks import NewPick, Picks
from studio.store.preferences import Preferences
from studio.store.round_pairs import NewRoundPair
from studio.store.rounds import LeaseLost, Rounds

__all__ = [
    "Assignment",
    "Deletion",
    "GalleryFilter",
    "LeaseLost",
    "NewAdapter",
    "NewCandidate",
    "NewGeneration",
    "NewPick",
    "NewPortrait",
    "NewRoundPair",
    "Origin",
    "Progress",
    "Store",
    "StoreError",
]


class Store:
    """The parts of the store, by subject."""

    def __init__(self, folder: Path, database: Database, *, rng: random.Random | None = None) -> None:
        rng = rng or random.SystemRandom()
        self.folder = folder
        self.database = database
        self.media = MediaStore(database, folder / "media")
        self.people = People(database)
        self.generations = Generations(database)
        self.comparisons = Comparisons(database, rng)
        self.picks = Picks(database)
        self.sessions = Sessions(database, self.comparisons, rng)
        self.rounds = Rounds(database)
        self.adapters = Adapters(database)
        self.deletions = Deletions(database, self.media)
        self.insights = Insights(database)
        self.preferences = Preferences(database)

    @classmethod
    def open(cls, folder: Path, *, database_url: str | None = None, rng: random.Random | None = None) -> Store:
        """Open the data folder, make it where it is missing, and bring its tables up to date.

        `database_url`: a SQLAlchemy URL such as `postgresql+psycopg://...`; None for `studio.db` in the folder.
        `rng`: decides sides and what is repeated; given by tests. Raises StoreError when folder or database cannot be
        used, or were written by a newer version.
        """
        folder = Path(folder).resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            database = Database(database_url or f"sqlite:///{folder / 'studio.db'}")
            migrate(database, folder / "migrate.lock")
            return cls(folder, database, rng=rng)
        except OSError as error:
            raise StoreError(f"The data folder {folder} cannot be used ({error}); choose another one.") from error

    def close(self) -> None:
        """Give the database connections back."""
        self.database.close()
