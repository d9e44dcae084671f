"""Every person of a picture against every face in it, measured when somebody asks."""

from __future__ import annotations

import numpy as np

from core.images import read_picture
from core.portraits import largest_face
from studio.context import Studio
from studio.model_host import ModelsNotReady
from studio.store import StoreError
from studio.store.models import Candidate, Generation, Portrait
from studio.words import similarity_table


def similarity_html(studio: Studio, row: Generation, candidate: Candidate) -> str:
    """The similarity matrix of a candidate as a table.

    Raises:
        ModelsNotReady: there is no face pack.
        StoreError: a portrait has no face that this pack can describe.
        PictureError: a file is damaged.
    """
    studio.host.wait()
    analyzer = studio.host.analyzer
    if analyzer is None:
        raise ModelsNotReady("There is no face pack, so faces cannot be compared.")
    portraits = [reference.portrait for reference in row.references]
    references = np.stack([_embedding(studio, portrait) for portrait in portraits])
    faces = analyzer.analyze(read_picture(studio.store.media.path(candidate.media_sha256)))
    found = np.stack([face.embedding for face in faces]) if faces else np.zeros((0, references.shape[1]), np.float32)
    return similarity_table(
        [portrait.person.name for portrait in portraits],
        [studio.media_url(portrait.crop_sha256) for portrait in portraits],
        [face.box.tolist() for face in faces],
        references @ found.T,
        threshold=analyzer.same_person_threshold,
        picture_url=studio.media_url(candidate.media_sha256),
        size=(candidate.width, candidate.height),
    )


def _embedding(studio: Studio, portrait: Portrait) -> np.ndarray:
    """Unit length, by the present face pack, whichever pack the portrait was added with."""
    analyzer = studio.host.analyzer
    if portrait.face_pack == analyzer.name and portrait.embedding is not None:
        return portrait.embedding
    face = largest_face(analyzer.analyze(read_picture(studio.store.media.path(portrait.crop_sha256))))
    if face is None:
        raise StoreError(f"{analyzer.name} finds no face in the portrait of {portrait.person.name}.")
    return face.embedding
