"""Finding, describing and embedding the faces of a picture: InsightFace behind one small class.

A *pack* is a directory of ONNX models (detector, recogniser, optionally sex and age). The application's own
pack, trained on rendered people, lies in `assets/faces`; any InsightFace pack works as well. Nothing is ever
downloaded here.
"""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from insightface.app import FaceAnalysis
from insightface.model_zoo import model_zoo

# It calls scikit-image by a name that will go; nobody who uses the application can do anything about it.
warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning, r"insightface\.")

INSIGHTFACE_MODELS = Path("~/.insightface/models")
INSIGHTFACE_LICENCE = "non-commercial research only (InsightFace model terms)"
# Between the 1st percentile of the same person (.39) and the 99.9th of different people (.34), small
# InsightFace pack.
DEFAULT_SAME_PERSON_THRESHOLD = 0.35
# The detector sees the picture twice: small, so that a face filling the frame is found, and large for small
# faces.
DETECTION_SIZES = ((128, 128), (640, 640))
# Share of the smaller of two boxes that may lie in the other.
INSIDE = 0.65
# A thinner picture than this would be resized to nothing; black is added on its right or at its bottom.
THINNEST = 1 / 64


class FacePackError(RuntimeError):
    """A face pack that is missing, incomplete or damaged; says where it was looked for and what to do."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a picture.

    Attributes:
        box: (4,) float32 left, top, right, bottom in pixels; may reach beyond the picture.
        landmarks: (5, 2) float32 x, y in pixels: eyes, nose tip, mouth corners, left (as seen) first.
        embedding: (embedding_size,) float32, unit length: the dot product of two is their cosine similarity.
        score: the detector's confidence in [0, 1].
        sex: "female" or "male" as the pack sees it, None when the pack has no such model.
        age: apparent age in years, None when the pack has no such model.
    """

    box: np.ndarray
    landmarks: np.ndarray
    embedding: np.ndarray
    score: float
    sex: str | None = None
    age: int | None = None

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box, (x, y) in pixels."""
        return float(self.box[0] + self.box[2]) / 2, float(self.box[1] + self.box[3]) / 2


def default_pack() -> Path:
    """The pack that comes with the application: free to use, made of no real person."""
    return Path(__file__).resolve().parent.parent / "assets" / "faces"


def find_pack(pack: str | Path) -> Path:
    """Where a pack lies: a directory, or the name of one installed by InsightFace (`buffalo_l`).

    Raises:
        FacePackError: nothing there; names the places, the licence and the command that installs it.
    """
    asked = Path(pack).expanduser()
    places = [asked]
    if len(asked.parts) == 1:
        places.append(INSIGHTFACE_MODELS.expanduser() / asked)
    for place in places:
        if any(place.glob("*.onnx")):
            return place.resolve()
    looked = " and ".join(str(place) for place in places)
    if asked.resolve() == default_pack():
        raise FacePackError(
            f"The application's own face pack (Apache-2.0) is not in {looked}. It is part of the repository: "
            "restore it with `git checkout -- assets/faces`, or train it (`python -m trainers.mini.faces`)."
        )
    raise FacePackError(
        f"No face pack {str(pack)!r}: looked in {looked} for *.onnx files, found none. InsightFace's packs "
        f"are for {INSIGHTFACE_LICENCE}; `insightface-cli model.download {asked.name}` installs one. "
        "The application's own pack needs no download."
    )


class FaceAnalyzer:
    """Detector and recogniser of one pack; safe to share between threads, which take turns.

    Args:
        pack: a pack directory, or the name of an InsightFace pack installed under ~/.insightface/models.
        providers: ONNX Runtime execution providers, in order of preference.
        detection_threshold: least detector confidence of a face, in (0, 1).
        detection_sizes: (width, height) of the detector's views, multiples of 32; the pack's own when absent, else one
            small and one large view, which together also find faces that fill the picture.
        threads: CPU threads of one analysis; None lets ONNX Runtime take all cores.

    Raises:
        FacePackError: the pack is missing, has no detector or recogniser, or a file is not what its manifest
            says.
    """

    def __init__(
        self,
        pack: str | Path,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        detection_threshold: float = 0.5,
        detection_sizes: Sequence[tuple[int, int]] | None = None,
        threads: int | None = None,
    ):
        if not 0 < detection_threshold < 1:
            raise ValueError(f"detection_threshold must lie between 0 and 1, got {detection_threshold}")
        missing = [name for name in providers if name not in onnxruntime.get_available_providers()]
        if missing or not providers:
            raise ValueError(
                f"execution providers {missing or 'none'} are not available; "
                f"this ONNX Runtime has {onnxruntime.get_available_providers()}"
            )
        self.path = find_pack(pack)
        self._manifest = _read_manifest(self.path)
        if detection_sizes is None:
            detection_sizes = self._manifest.get("detection_sizes", DETECTION_SIZES)
        if not detection_sizes or any(side <= 0 or side % 32 for size in detection_sizes for side in size):
            raise ValueError(f"detection_sizes must be multiples of 32, got {detection_sizes}")
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        session = {"providers": list(providers), "sess_options": options}
        try:
            self._app = FaceAnalysis(name=str(self.path), **session)
            self._add_attributes(session)
        except FacePackError:
            raise
        except Exception as error:  # insightface, ONNX Runtime and protobuf each raise their own kinds
            reason = str(error) or "it has no detector"  # insightface's own check is a bare assertion
            raise FacePackError(f"The face pack {self.path} cannot be loaded: {reason}") from error
        if "recognition" not in self._app.models:
            raise FacePackError(
                f"The face pack {self.path} has {sorted(self._app.models)} but no recognition model, so no "
                "two faces can be compared with it"
            )
        # ctx_id 0 leaves the sessions on the providers named above; -1 would move them to the CPU.
        self._app.prepare(0, det_thresh=detection_threshold, det_size=[tuple(size) for size in detection_sizes])
        self._recognition = self._app.models["recognition"]
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Name of the pack: from its manifest, else its directory."""
        return self._manifest.get("model_id", self.path.name)

    @property
    def licence(self) -> str:
        """What the pack may be used for, shown wherever it is chosen: an SPDX identifier or InsightFace's
        terms.
        """
        return self._manifest.get("license_spdx", INSIGHTFACE_LICENCE)

    @property
    def same_person_threshold(self) -> float:
        """Cosine similarity from which two faces count as one person; measured for the pack, or a common
        default.
        """
        return float(self._manifest.get("same_person_threshold", DEFAULT_SAME_PERSON_THRESHOLD))

    @property
    def embedding_size(self) -> int:
        """Length of an embedding, read from the recogniser."""
        size = self._recognition.output_shape[-1]
        if not isinstance(size, int):  # a graph may leave its output size open
            side = self._recognition.input_size[0]
            size = self._recognition.get_feat(np.zeros((side, side, 3), np.uint8)).shape[-1]
        return size

    @property
    def recogniser_path(self) -> Path:
        """The recogniser's ONNX file: what `core.face_encoder.FaceEncoder.from_onnx` makes differentiable."""
        return Path(self._recognition.model_file)

    @property
    def providers(self) -> tuple[str, ...]:
        """Execution providers in use, for the line the application prints at start."""
        return tuple(self._recognition.session.get_providers())

    def analyze(self, picture: np.ndarray) -> list[Face]:
        """All faces of a picture, from left to right.

        Args:
            picture: (H, W, 3) uint8, RGB.

        Raises:
            ValueError: another shape or dtype.
        """
        if (
            not isinstance(picture, np.ndarray)
            or picture.dtype != np.uint8
            or picture.ndim != 3
            or picture.shape[2] != 3
            or 0 in picture.shape
        ):
            found = getattr(picture, "shape", type(picture).__name__), getattr(picture, "dtype", "")
            raise ValueError(f"a picture must be an RGB array (H, W, 3) of uint8, got {found}")
        bgr = _pad_sliver(np.ascontiguousarray(picture[..., ::-1]))
        with self._lock:
            found = self._app.get(bgr)
        faces = _without_faces_in_faces([_as_face(item) for item in found])
        return sorted(faces, key=lambda face: face.center)

    def embed_aligned(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings (N, embedding_size) of unit length of faces already on the ArcFace template.

        crops: (N, S, S, 3) uint8 RGB, S being 112 for all known packs (`core.face_encoder.align_faces`).
        """
        if crops.ndim != 4 or crops.dtype != np.uint8 or crops.shape[3] != 3 or not len(crops):
            raise ValueError(f"crops must be (N, S, S, 3) of uint8, N >= 1, got {crops.shape} of {crops.dtype}")
        with self._lock:
            features = self._recognition.get_feat([np.ascontiguousarray(crop[..., ::-1]) for crop in crops])
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    def _add_attributes(self, session: dict) -> None:
        """Sex and age of a pack with a manifest: insightface's manifest (version 2) has no such task of its
        own.
        """
        entry = self._manifest.get("tasks", {}).get("attributes")
        if entry is None or "genderage" in self._app.models:
            return
        file = self.path / entry["file"]
        if hashlib.sha256(file.read_bytes()).hexdigest() != entry["sha256"]:
            raise FacePackError(f"{file} is damaged: its SHA-256 is not the one in the pack's manifest")
        self._app.models["genderage"] = model_zoo.get_model(str(file), **session)


def _read_manifest(pack: Path) -> dict:
    file = pack / "manifest.json"
    if not file.is_file():
        return {}
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FacePackError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(manifest, dict):
        raise FacePackError(f"{file} must hold a JSON object")
    return manifest


def _pad_sliver(bgr: np.ndarray) -> np.ndarray:
    height, width = bgr.shape[:2]
    least = int(np.ceil(max(height, width) * THINNEST))
    right, bottom = max(0, least - width), max(0, least - height)
    if not right and not bottom:
        return bgr
    return cv2.copyMakeBorder(bgr, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(0, 0, 0))


def _without_faces_in_faces(faces: list[Face]) -> list[Face]:
    """Of two faces, one of which lies mostly inside the other, the one the detector is surer of.

    Non-maximum suppression compares areas, so a detail taken for a face within a large face survives it; no real face
    lies inside another.
    """
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(_shared_area(face.box, other.box) < INSIDE * min(_area(face.box), _area(other.box)) for other in kept):
            kept.append(face)
    return kept


def _area(box: np.ndarray) -> float:
    return float(np.prod(box[2:] - box[:2]))


def _shared_area(first: np.ndarray, second: np.ndarray) -> float:
    low, high = np.maximum(first[:2], second[:2]), np.minimum(first[2:], second[2:])
    return float(np.prod(np.maximum(high - low, 0)))


def _as_face(found) -> Face:
    return Face(
        box=np.asarray(found.bbox, np.float32),
        landmarks=np.asarray(found.kps, np.float32),
        embedding=np.asarray(found.normed_embedding, np.float32),
        score=float(found.det_score),
        sex=None if found.gender is None else ("female", "male")[int(found.gender)],
        age=None if found.age is None else int(found.age),
    )
