"""Identity: the loss on decoded pictures, and the measure of a finished one (IdGlow 3.3, eq. 2 and 3).

Both compare N reference people with the M faces of a picture through cosine similarities S[i, j] of unit
embeddings and the assignment that maximises their sum. The loss carries gradients and is weighted by the
identity schedule; the measure counts what the loss cannot see: people who are missing, doubled or in the
wrong place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.face_encoder import FaceEncoder
from core.faces import Face, FaceAnalyzer
from core.matching import match_faces

# Where the five landmarks lie in a detector's box, as shares of its width and height: medians over the
# detections of an SCRFD model on photographs, made symmetric. Good enough to align a frontal face whose
# landmarks are not known.
LANDMARKS_IN_BOX = ((0.27, 0.40), (0.73, 0.40), (0.50, 0.59), (0.31, 0.74), (0.69, 0.74))

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, eq=False)
class IdentityLoss:
    """Identity loss of a batch of B pictures.

    Attributes:
        loss: scalar with gradient: sum over samples of weight * per_sample, divided by B.
        per_sample: (B,) mean of 1 - S over the matched pairs, detached, in [0, 2]; NaN where nothing was
            compared.
        pairs: for each sample the matched (reference, face) indices; empty where nothing was compared.
        confidence: (B,) by how much the matched reference beats the best other one, mean over the matched
            faces, in [-2, 2]; NaN with fewer than two references. Near 0 or below, the assignment is close to
            random.
    """

    loss: Tensor
    per_sample: Tensor
    pairs: tuple[tuple[tuple[int, int], ...], ...]
    confidence: Tensor


def identity_loss(
    pictures: Tensor,
    references: Sequence[Tensor],
    landmarks: Sequence[Tensor],
    encoder: FaceEncoder,
    *,
    weights: Tensor | None = None,
    pairs: Sequence[Pairs] | None = None,
) -> IdentityLoss:
    """Mean of 1 - cosine over matched reference and face pairs, with gradient into the pixels (eq. 2 and 3).

    The gradient passes through the encoder and the alignment warp. Detection carries none: the landmarks are
    the true ones of the training picture, `landmarks_from_boxes`, or `detect_landmarks`. Give `pairs`
    wherever the truth is known; on very noisy estimates the assignment by similarity is close to random and
    gradients cancel.

    Args:
        pictures: (B, 3, H, W) RGB in [0, 1], float: decoded clean estimates. Values outside are not clamped,
            since clamping would stop the gradient there.
        references: B tensors (N, embedding_size) of unit length, N may differ.
        landmarks: B tensors (M, 5, 2) in pixels of `pictures`; M may differ and be 0.
        encoder: frozen recogniser; its parameters collect no gradient.
        weights: (B,) identity schedule lambda(sigma) of each sample; 1 when absent. Samples of weight 0 are
            not encoded.
        pairs: (reference, face) indices for each sample; the Hungarian assignment when absent.

    Raises:
        ValueError: lists of different lengths, embeddings of another size, negative weights, indices out of
            range.
    """
    batch = len(pictures)
    if len(references) != batch or len(landmarks) != batch or (pairs is not None and len(pairs) != batch):
        raise ValueError(
            f"{batch} pictures need as many reference sets, landmark sets and pair lists; got "
            f"{len(references)}, {len(landmarks)} and {'none' if pairs is None else len(pairs)}"
        )
    weights = pictures.new_ones(batch) if weights is None else weights.to(pictures)
    if weights.shape != (batch,) or not bool((weights >= 0).all()):
        raise ValueError(f"weights must be ({batch},) numbers of 0 or more, got {weights.tolist()}")
    for embeddings in references:
        if embeddings.ndim != 2 or embeddings.shape[1] != encoder.embedding_size:
            raise ValueError(
                f"references must be (people, {encoder.embedding_size}) embeddings of this encoder, "
                f"got {tuple(embeddings.shape)}"
            )

    # 1. Which samples count, and one batch of all their faces.
    used = [b for b in range(batch) if weights[b] > 0 and len(landmarks[b]) and len(references[b])]
    per_sample = pictures.new_full((batch,), torch.nan)
    confidence = pictures.new_full((batch,), torch.nan)
    matched: list[tuple[tuple[int, int], ...]] = [()] * batch
    # A zero that hangs on the pixels: backward works even when no face was there to compare.
    total = pictures.sum() * 0
    if not used:
        return IdentityLoss(total, per_sample, tuple(matched), confidence)
    counts = [len(landmarks[b]) for b in used]
    index = torch.repeat_interleave(torch.tensor(used), torch.tensor(counts))
    all_landmarks = torch.cat([landmarks[b].to(pictures) for b in used])
    faces = encoder.embed_faces(pictures, all_landmarks, picture_index=index).split(counts)

    # 2. Similarities, assignment and loss of each sample.
    for b, embeddings in zip(used, faces, strict=True):
        similarity = references[b].to(embeddings).detach() @ embeddings.T
        chosen = _assign(similarity) if pairs is None else _checked(pairs[b], tuple(similarity.shape), b)
        if not chosen:
            continue
        rows, columns = (list(indices) for indices in zip(*chosen, strict=True))
        sample_loss = (1 - similarity[rows, columns]).mean()
        total = total + weights[b] * sample_loss
        per_sample[b] = sample_loss.detach()
        matched[b] = tuple(chosen)
        if len(similarity) > 1:
            others = similarity.detach()[:, columns].clone()
            others[rows, range(len(columns))] = -torch.inf
            confidence[b] = (similarity.detach()[rows, columns] - others.amax(0)).mean()
    return IdentityLoss(total / batch, per_sample, tuple(matched), confidence)


def landmarks_from_boxes(boxes: Tensor) -> Tensor:
    """(M, 4) left, top, right, bottom -> (M, 5, 2): the landmarks of an average, frontal, upright face in
    each box.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not bool((boxes[:, 2:] > boxes[:, :2]).all()):
        raise ValueError(f"boxes must be (faces, 4) with right > left and bottom > top, got {boxes.tolist()}")
    return boxes[:, None, :2] + boxes.new_tensor(LANDMARKS_IN_BOX) * (boxes[:, None, 2:] - boxes[:, None, :2])


@torch.no_grad()
def detect_landmarks(pictures: Tensor, analyzer: FaceAnalyzer) -> list[Tensor]:
    """Detect the faces of decoded pictures (B, 3, H, W) in [0, 1]: B tensors (M, 5, 2), left to right, no
    gradient.
    """
    found = []
    for picture in (pictures.detach().clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy():
        faces = analyzer.analyze(np.ascontiguousarray(picture))
        landmarks = np.stack([face.landmarks for face in faces]) if faces else np.zeros((0, 5, 2), np.float32)
        found.append(torch.from_numpy(landmarks).to(pictures))
    return found


@dataclass(frozen=True)
class ReferenceRow:
    """How one reference person came out.

    Attributes:
        reference: its index.
        face: index of the face assigned to it, None when there were fewer faces than references.
        similarity: cosine in [-1, 1]; 0 when no face is assigned.
        covered: whether the similarity reaches the threshold of the same person.
        duplicated: whether two or more faces claim this person.
        box: left, top, right, bottom of the assigned face in pixels of the picture; None without one.
        swapped: whether this person and another stand the wrong way round; False when no order was given.
    """

    reference: int
    face: int | None
    similarity: float
    covered: bool
    duplicated: bool = False
    box: tuple[float, float, float, float] | None = None
    swapped: bool = False


@dataclass(frozen=True)
class FaceReport:
    """What a picture made of N reference people (method: FaceSim counts a missing face as 0).

    Attributes:
        face_sim: mean over the references of the assigned cosine, a missing face counting 0; in [-1, 1].
        coverage: share of the references whose face reaches the threshold, in [0, 1].
        duplicates: number of references that two or more faces claim.
        swaps: number of pairs of covered people who stand the wrong way round; None when no order was given.
        face_count: number of faces found.
        count_correct: whether there are exactly as many faces as references.
        threshold: cosine from which two faces count as one person.
        rows: one row for each reference, in order.
    """

    face_sim: float
    coverage: float
    duplicates: int
    swaps: int | None
    face_count: int
    count_correct: bool
    threshold: float
    rows: tuple[ReferenceRow, ...]


def measure_faces(
    reference_embeddings: np.ndarray,
    faces: Sequence[Face],
    *,
    threshold: float,
    expected_order: Sequence[int] | None = None,
) -> FaceReport:
    """Compare the faces of a picture with the people it should show.

    Args:
        reference_embeddings: (N, embedding_size) of unit length, N >= 1.
        faces: the faces of the picture, of the same encoder; may be empty.
        threshold: cosine from which two faces count as one person (`FaceAnalyzer.same_person_threshold`).
        expected_order: reference indices from left to right, when the prompt fixed the places.

    Raises:
        ValueError: no reference, embeddings of different sizes or not of unit length.
    """
    references = np.asarray(reference_embeddings, np.float64)
    if references.ndim != 2 or not len(references):
        raise ValueError(f"reference_embeddings must be (people, size) with at least one, got {references.shape}")
    embeddings = np.array([face.embedding for face in faces], np.float64)
    if len(faces) and embeddings.shape[1] != references.shape[1]:
        raise ValueError(f"references have {references.shape[1]} numbers, faces {embeddings.shape[1]}: different packs")
    for kind, rows in (("reference", references), ("face", embeddings)):
        if len(rows) and not np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-3):
            raise ValueError(f"{kind} embeddings must have unit length")
    similarity = references @ embeddings.T if len(faces) else np.zeros((len(references), 0))

    match = match_faces(
        similarity,
        threshold=threshold,
        expected_order=expected_order,
        face_centers=[face.center[0] for face in faces],
    )
    pairs = {pair.reference: pair for pair in match.pairs}
    swapped = {reference for pair in match.swapped for reference in pair}
    rows = tuple(
        ReferenceRow(
            i,
            pairs[i].face,
            pairs[i].similarity,
            covered=pairs[i].similarity >= threshold,
            duplicated=i in match.duplicates,
            box=tuple(float(edge) for edge in faces[pairs[i].face].box),
            swapped=i in swapped,
        )
        if i in pairs
        else ReferenceRow(i, None, 0.0, covered=False, duplicated=i in match.duplicates)
        for i in range(len(references))
    )
    return FaceReport(
        face_sim=float(np.mean([row.similarity for row in rows])),
        coverage=float(np.mean([row.covered for row in rows])),
        duplicates=len(match.duplicates),
        swaps=None if expected_order is None else len(match.swapped),
        face_count=len(faces),
        count_correct=len(faces) == len(references),
        threshold=threshold,
        rows=rows,
    )


def _assign(similarity: Tensor) -> list[tuple[int, int]]:
    match = match_faces(similarity.detach().cpu().numpy(), threshold=1.0)  # the pairs do not depend on the threshold
    return [(pair.reference, pair.face) for pair in match.pairs]


def _checked(pairs: Pairs, shape: tuple[int, int], sample: int) -> list[tuple[int, int]]:
    references, faces = shape
    for i, j in pairs:
        if not (0 <= i < references and 0 <= j < faces):
            raise ValueError(f"sample {sample}: pair ({i}, {j}) for {references} references and {faces} faces")
    return [(int(i), int(j)) for i, j in pairs]
