"""The three models as one InsightFace model pack: ONNX files, a manifest with their SHA-256, the licence."""

from __future__ import annotations

import hashlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers.mini.faces import attributes, detector
from trainers.mini.faces.attributes import Attributes
from trainers.mini.faces.detector import Detector
from trainers.mini.faces.recogniser import EMBEDDING_SIZE, Recogniser

MODEL_ID = "idglow_faces"
LICENCE = "Apache-2.0"
LICENCE_NOTICE = """\
IdGlow Studio face pack
Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
Trained on rendered people only (CC0 MakeHuman geometry, procedural skin and hair). No photograph of a person
was used.
"""
OPSET = 17
# The detector learns on scenes of up to 192 px: much finer views show it parts of faces larger than it knows.
DETECTION_SIZES = ((128, 128), (320, 320))


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """score_shift: added to the detector's logits, so that 0.5 is a good threshold. same_person_threshold:
    cosine from which two faces count as one person."""

    score_shift: float = 0.0
    same_person_threshold: float = 0.35


class ExportedDetector(nn.Module):
    """The detector with the outputs InsightFace decodes: scores, boxes, landmarks, each at strides 8, 16 and
    32.
    """

    def __init__(self, model: Detector, score_shift: float = 0.0):
        super().__init__()
        self.model, self.score_shift = model, score_shift

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        scores, boxes, landmarks = self.model(pictures)
        scores = [(score + self.score_shift).sigmoid() for score in scores]
        return tuple(rows.reshape(-1, rows.shape[-1]) for rows in (*scores, *boxes, *landmarks))


def export_pack(
    directory: Path,
    detector_model: Detector,
    recogniser_model: Recogniser,
    attributes_model: Attributes | None,
    calibration: Calibration,
) -> Path:
    """Write the pack; `directory` is then what `FaceAnalyzer` and `insightface.app.FaceAnalysis` take as its
    name.

    InsightFace's manifest knows the tasks detection and recognition; the third, `attributes`, is read by
    `FaceAnalyzer`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    names = [f"{kind}_{stride}" for kind in ("score", "box", "landmarks") for stride in detector.STRIDES]
    _export(
        ExportedDetector(detector_model, calibration.score_shift).eval(),
        torch.zeros(1, 3, 128, 160),
        directory / "detector.onnx",
        outputs=names,
        open_axes={"input": {2: "height", 3: "width"}} | {name: {0: f"rows_{name}"} for name in names},
    )
    _export(
        recogniser_model.eval(),
        torch.zeros(2, 3, 112, 112),
        directory / "recogniser.onnx",
        outputs=["embedding"],
        open_axes={"input": {0: "faces"}, "embedding": {0: "faces"}},
    )
    if attributes_model is not None:
        _export(
            attributes_model.eval(),
            torch.zeros(1, 3, attributes.SIZE, attributes.SIZE),
            directory / "attributes.onnx",
            outputs=["attributes"],
            open_axes={},
        )

    def entry(file: str, mean: float, std: float, **more: object) -> dict:
        digest = hashlib.sha256((directory / file).read_bytes()).hexdigest()
        return {"file": file, "sha256": digest, "preprocessing": {"mean": mean, "std": std}, **more}

    manifest = {
        "manifest_version": 2,
        "model_id": MODEL_ID,
        "display_name": "IdGlow Studio faces (trained on rendered people)",
        "license": "MODEL.LICENSE",
        "license_spdx": LICENCE,
        "detection_sizes": [list(size) for size in DETECTION_SIZES],
        "same_person_threshold": round(calibration.same_person_threshold, 3),
        "tasks": {
            "detection": entry("detector.onnx", detector.MEAN, detector.STD),
            "recognition": entry(
                "recogniser.onnx", 127.5, 127.5, input_size=[112, 112], embedding_dimension=EMBEDDING_SIZE
            ),
        },
    }
    if attributes_model is not None:
        entry_of_attributes = entry("attributes.onnx", attributes.MEAN, attributes.STD, input_size=[96, 96])
        manifest["tasks"]["attributes"] = entry_of_attributes
    (directory / "MODEL.LICENSE").write_text(LICENCE_NOTICE)
    (directory / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return directory


def _export(model: nn.Module, example: Tensor, file: Path, *, outputs: list[str], open_axes: dict) -> None:
    model = model.to("cpu", memory_format=torch.contiguous_format)
    with warnings.catch_warnings():
        # The newer exporter needs another package and writes graphs that InsightFace's shape rules do not
        # know.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (example,),
            str(file),
            input_names=["input"],
            output_names=outputs,
            dynamic_axes=open_axes,
            opset_version=OPSET,
            dynamo=False,
        )
