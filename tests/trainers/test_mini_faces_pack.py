"""Training as a command, and the pack that comes out of it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import insightface
import numpy as np
import onnxruntime
import pytest
import torch
from insightface.app import FaceAnalysis

from core.face_encoder import FaceEncoder
from core.faces import FaceAnalyzer, default_pack
from tests.trainers.mini_faces_portraits import write_portraits
from trainers.mini.faces.__main__ import main
from trainers.mini.faces.attributes import Attributes
from trainers.mini.faces.checkpoint import TrainingConfig, load_average
from trainers.mini.faces.detector import Detector
from trainers.mini.faces.export import Calibration, ExportedDetector, export_pack
from trainers.mini.faces.measure import overlap
from trainers.mini.faces.recogniser import Recogniser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    return write_portraits(tmp_path_factory.mktemp("portraits"))


def with_random_statistics(model, seed=0):
    """Batch normalisation that does something, as after training."""
    torch.manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(layer.weight, 0.7, 1.3)
            torch.nn.init.normal_(layer.bias, 0, 0.1)
    return model.eval()


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    return [with_random_statistics(model) for model in (Detector(), Recogniser(), Attributes())]


@pytest.fixture(scope="module")
def pack(models, tmp_path_factory):
    directory = tmp_path_factory.mktemp("root") / "models" / "ours"
    return export_pack(directory, *models, Calibration(score_shift=0.5, same_person_threshold=0.31))


def run_onnx(file, blob):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: blob.numpy()})


def test_onnx_runtime_equals_torch(models, pack):
    detector, recogniser, attributes = models
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for height, width in ((128, 128), (64, 96)):
            blob = torch.rand(1, 3, height, width, generator=generator) * 2 - 1
            expected = ExportedDetector(detector, 0.5)(blob)
            found = run_onnx(pack / "detector.onnx", blob)
            assert [x.shape for x in found] == [tuple(x.shape) for x in expected]
            for ours, theirs in zip(expected, found, strict=True):
                np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-4)
        crops = torch.rand(3, 3, 112, 112, generator=generator) * 2 - 1
        np.testing.assert_allclose(recogniser(crops), run_onnx(pack / "recogniser.onnx", crops)[0], atol=1e-4)
        crops = torch.rand(1, 3, 96, 96, generator=generator) * 2 - 1
        np.testing.assert_allclose(attributes(crops), run_onnx(pack / "attributes.onnx", crops)[0], atol=1e-4)


def test_recogniser_converts_back_to_a_differentiable_module(models, pack):
    crops = torch.rand(2, 3, 112, 112)
    encoder = FaceEncoder.from_onnx(pack / "recogniser.onnx")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(models[1]((crops * 255 - 127.5) / 127.5))
    torch.testing.assert_close(encoder(crops), expected, atol=1e-4, rtol=0)
    assert encoder.embedding_size == 128


def test_insightface_loads_the_pack_unchanged(pack):
    app = FaceAnalysis(name="ours", root=str(pack.parent.parent), providers=["CPUExecutionProvider"])
    app.prepare(0, det_thresh=0.01, det_size=(128, 128))
    assert sorted(app.models) == ["detection", "recognition"]
    assert app.models["detection"].use_kps
    assert app.models["detection"].input_std == 128
    faces = app.get(np.random.default_rng(0).integers(0, 256, (120, 100, 3), np.uint8))
    assert all(face.embedding.shape == (128,) for face in faces)


def test_insightface_routes_the_files_by_their_shape_alone(pack, tmp_path):
    """Without the manifest, as old packs are: three tasks, sex and age among them."""
    for name in ("detector", "recogniser", "attributes"):
        (tmp_path / f"{name}.onnx").write_bytes((pack / f"{name}.onnx").read_bytes())
    app = FaceAnalysis(name=str(tmp_path), providers=["CPUExecutionProvider"])
    assert sorted(app.models) == ["detection", "genderage", "recognition"]
    assert (app.models["recognition"].input_mean, app.models["recognition"].input_std) == (127.5, 127.5)
    assert (app.models["genderage"].input_mean, app.models["genderage"].input_std) == (127.5, 128.0)


def test_analyzer_reads_the_pack_with_sex_and_age(pack):
    analyzer = FaceAnalyzer(pack, detection_threshold=0.01, threads=1, detection_sizes=((128, 128),))
    assert (analyzer.licence, analyzer.same_person_threshold) == ("Apache-2.0", 0.31)
    faces = analyzer.analyze(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    assert faces
    assert all(face.sex in ("female", "male") and isinstance(face.age, int) for face in faces)


def test_pack_without_attributes_says_nothing_about_sex_and_age(models, tmp_path):
    pack = export_pack(tmp_path / "pack", *models[:2], None, Calibration())
    assert not (pack / "attributes.onnx").exists()
    analyzer = FaceAnalyzer(pack, detection_threshold=0.01, threads=1, detection_sizes=((128, 128),))
    faces = analyzer.analyze(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    assert {(face.sex, face.age) for face in faces} == {(None, None)}


def test_commands_train_export_and_measure(portraits, tmp_path, capsys):
    for model in ("detector", "recogniser", "attributes"):
        out = str(tmp_path / f"{model}.pt")
        main(["train", model, "--data", str(portraits), "--out", out, "--samples", "8", "--batch", "4"])
    data, pack, numbers = ["--data", str(portraits)], str(tmp_path / "pack"), tmp_path / "numbers.json"
    main(["export", "--checkpoints", str(tmp_path), *data, "--out", pack, "--scenes", "2"])
    few = ["--scenes", "2", "--portraits", "4"]
    main(["measure", "--pack", pack, *data, *few, "--out", str(numbers)])
    assert "| measured | cases | idglow_faces |" in capsys.readouterr().out
    assert {item["name"] for item in json.loads(numbers.read_text())["idglow_faces"]} >= {
        "faces found in composed pictures",
        "portraits found",
        "time for a picture",
    }


def command(portraits, out):
    program = [sys.executable, "-m", "trainers.mini.faces", "train", "attributes"]
    return [
        *program,
        "--data",
        str(portraits),
        "--out",
        str(out),
        "--samples",
        "24",
        "--batch",
        "2",
        "--save-every",
        "3",
    ]


def test_killed_training_resumes_to_the_same_weights(portraits, tmp_path, monkeypatch):
    """Kill after the first checkpoint, resume, and compare with a run that was left alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed = tmp_path / "killed.pt"
    process = subprocess.Popen(command(portraits, killed), cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not killed.is_file():
        assert process.poll() is None
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(portraits, killed), cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    alone = tmp_path / "alone.pt"
    subprocess.run(command(portraits, alone), cwd=ROOT, env=environment, check=True, stderr=subprocess.DEVNULL)
    resumed, expected = (load_average(file, Attributes()).state_dict() for file in (killed, alone))
    for name, value in expected.items():
        torch.testing.assert_close(resumed[name], value, rtol=0, atol=0, msg=name)


def test_resuming_with_other_values_is_refused(portraits, tmp_path):
    arguments = [
        "train",
        "attributes",
        "--data",
        str(portraits),
        "--out",
        str(tmp_path / "a.pt"),
        "--batch",
        "2",
    ]
    main([*arguments, "--samples", "4"])
    with pytest.raises(ValueError, match=r"other values for samples"):
        main([*arguments, "--samples", "6"])


def test_precision_may_change_and_must_be_known(portraits, tmp_path):
    out = tmp_path / "a.pt"
    arguments = ["train", "attributes", "--data", str(portraits), "--batch", "2", "--samples", "4", "--out", str(out)]
    main([*arguments, "--precision", "bfloat16"])
    state = load_average(out, Attributes()).state_dict()
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in state.values())
    main(arguments)  # nothing is left to do, in whichever precision
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16"):
        TrainingConfig(data=("a",), out=out, samples=1, batch=1, learning_rate=1.0, precision="float16")


def test_a_new_run_may_start_from_other_weights(portraits, tmp_path):
    arguments = ["train", "attributes", "--data", str(portraits), "--batch", "2"]
    old, new = str(tmp_path / "a.pt"), str(tmp_path / "b.pt")
    main([*arguments, "--samples", "4", "--out", old])
    main([*arguments, "--samples", "2", "--out", new, "--start-from", old, "--learning-rate", "1e-12"])
    first, second = (load_average(tmp_path / name, Attributes()).state_dict() for name in ("a.pt", "b.pt"))
    torch.testing.assert_close(first["output.weight"], second["output.weight"], rtol=0, atol=1e-6)


def test_bad_values_are_refused(portraits, tmp_path):
    with pytest.raises(ValueError, match="samples must be above 0"):
        main(
            [
                "train",
                "attributes",
                "--data",
                str(portraits),
                "--out",
                str(tmp_path / "a.pt"),
                "--samples",
                "-1",
            ]
        )
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*detector\.pt"):
        main(
            [
                "export",
                "--checkpoints",
                str(tmp_path),
                "--data",
                str(portraits),
                "--out",
                str(tmp_path / "pack"),
            ]
        )


@pytest.mark.skipif(not (default_pack() / "manifest.json").is_file(), reason="the pack is not trained yet")
class TestShippedPack:
    def test_is_small_free_and_intact(self):
        manifest = json.loads((default_pack() / "manifest.json").read_text())
        assert manifest["license_spdx"] == "Apache-2.0"
        for task in manifest["tasks"].values():
            content = (default_pack() / task["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == task["sha256"]
        assert sum(file.stat().st_size for file in default_pack().iterdir()) < 12e6

    def test_finds_the_faces_of_a_photograph(self):
        """InsightFace's own sample: the boxes are its small detector's."""
        expected = np.array(
            [
                [56, 261, 169, 398],
                [270, 145, 372, 270],
                [464, 266, 573, 415],
                [745, 342, 847, 480],
                [906, 59, 1011, 206],
                [1130, 273, 1227, 401],
            ]
        )
        file = Path(insightface.__file__).parent / "data/images/t1.jpg"
        picture = np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])
        faces = FaceAnalyzer(default_pack(), threads=1).analyze(picture)
        found = sum(any(overlap(box, face.box) > 0.35 for face in faces) for box in expected)
        assert found >= 5
        assert len(faces) - found <= 2

    def test_recogniser_is_differentiable(self):
        encoder = FaceEncoder.from_onnx(default_pack() / "recogniser.onnx")
        crops = torch.rand(1, 3, 112, 112).requires_grad_()
        encoder(crops)[0, 0].backward()
        assert crops.grad.abs().max() > 0
