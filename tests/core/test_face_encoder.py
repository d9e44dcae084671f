import os
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from insightface.utils import face_align
from onnx import TensorProto, helper, numpy_helper

from core.face_encoder import ARCFACE_TEMPLATE, FaceEncoder, FaceEncoderError, align_faces
from tests.core.face_models import arcface_model

SHARED = Path(os.environ.get("IDGLOW_SHARED", Path(__file__).resolve().parents[3] / "shared"))
REAL_RECOGNISER = SHARED / "real/packs/real_500m/mbf128.onnx"

FACE = np.array([[40, 52], [71, 49], [57, 70], [45, 90], [68, 88]], np.float32)


def run_onnx(path, blob):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: blob.numpy()})[0]


def rotated(points, degrees, scale, shift):
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (scale * points @ rotation.T + shift).astype(np.float32)


@pytest.fixture
def recogniser(tmp_path):
    path = tmp_path / "recogniser.onnx"
    onnx.save(arcface_model(embedding_size=24), path)
    return path


def test_equals_onnx_runtime_on_every_operator_of_arcface_graphs(recogniser):
    encoder = FaceEncoder.from_onnx(recogniser)
    blob = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    operators = {node.op_type for node in onnx.load(recogniser).graph.node}
    assert operators >= {
        *("Conv", "BatchNormalization", "PRelu", "Add", "Sub", "Mul", "Flatten", "Gemm"),
        *("Relu", "Reshape", "Identity", "Dropout", "Constant"),
    }
    expected = run_onnx(recogniser, blob)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(encoder.features(blob).numpy(), expected, atol=1e-4)


def test_reads_sizes_and_returns_unit_embeddings(recogniser):
    encoder = FaceEncoder.from_onnx(recogniser)
    embedding = encoder(torch.rand(2, 3, 112, 112))
    assert (encoder.embedding_size, encoder.input_size) == (24, 112)
    assert embedding.shape == (2, 24)
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(2))
    assert not list(encoder.parameters())


@pytest.mark.parametrize(("first_names", "expected"), [(("Sub_0", "Mul_1"), (0.0, 1.0)), (("a", "b"), (127.5, 127.5))])
def test_input_range_follows_insightface(tmp_path, first_names, expected):
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    path = tmp_path / "recogniser.onnx"
    onnx.save(arcface_model(scaling_names=first_names), path)
    encoder, insightface = FaceEncoder.from_onnx(path), ArcFaceONNX(model_file=str(path))
    assert (encoder.input_mean, encoder.input_std) == (insightface.input_mean, insightface.input_std) == expected

    crop = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    ours = encoder(torch.from_numpy(crop[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255)[0].numpy()
    theirs = insightface.get_feat(crop)[0]
    np.testing.assert_allclose(ours, theirs / np.linalg.norm(theirs), atol=1e-4)


def test_asymmetric_padding_equals_onnx_runtime(tmp_path):
    path = tmp_path / "recogniser.onnx"
    onnx.save(arcface_model(pads=(0, 1, 2, 1)), path)
    blob = torch.rand(1, 3, 112, 112)
    np.testing.assert_allclose(FaceEncoder.from_onnx(path).features(blob), run_onnx(path, blob), atol=1e-4)


def test_unknown_operators_are_named(tmp_path):
    model = arcface_model()
    model.graph.node[0].op_type = "Resize"
    model.graph.node[1].op_type = "Softplus"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(FaceEncoderError, match=r"odd\.onnx.*Resize, Softplus"):
        FaceEncoder.from_onnx(tmp_path / "odd.onnx")


def test_files_that_are_no_recogniser_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.onnx"):
        FaceEncoder.from_onnx(tmp_path / "missing.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(FaceEncoderError, match=r"text\.onnx"):
        FaceEncoder.from_onnx(tmp_path / "text.onnx")
    two_outputs = arcface_model()
    two_outputs.graph.output.append(helper.make_tensor_value_info("extra", TensorProto.FLOAT, None))
    with pytest.raises(FaceEncoderError, match="2 outputs"):
        FaceEncoder(two_outputs)
    with pytest.raises(ValueError, match="112"):
        FaceEncoder(arcface_model()).features(torch.zeros(1, 3, 96, 96))


def test_auto_padding_is_refused():
    model = arcface_model()
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.attribute.append(helper.make_attribute("auto_pad", "SAME_UPPER"))
    with pytest.raises(FaceEncoderError, match="auto_pad"):
        FaceEncoder(model)


@pytest.mark.parametrize(
    ("degrees", "scale", "shift"),
    [(0, 1, (0, 0)), (25, 1.7, (60, 20)), (-100, 0.6, (40, 130)), (180, 2, (230, 240))],
)
def test_alignment_equals_norm_crop(degrees, scale, shift):
    rng = np.random.default_rng(1)
    picture = (
        cv2.GaussianBlur(rng.integers(0, 256, (260, 300, 3)).astype(np.float32), (0, 0), 2).round().astype(np.uint8)
    )
    landmarks = rotated(FACE, degrees, scale, shift)
    expected = face_align.norm_crop(picture, landmarks, 112).astype(np.float32)
    pixels = torch.from_numpy(picture.astype(np.float32) / 255).permute(2, 0, 1)[None]
    crop = align_faces(pixels, torch.from_numpy(landmarks)[None])[0].permute(1, 2, 0).numpy() * 255
    # OpenCV rounds positions to 1/32 of a pixel, hence no exact equality.
    assert np.abs(crop - expected).mean() < 0.6
    assert np.corrcoef(crop.ravel(), expected.ravel())[0, 1] > 0.999


def test_landmarks_on_the_template_leave_the_picture_as_it_is():
    picture = torch.rand(1, 3, 112, 112, dtype=torch.float64)
    template = torch.tensor(ARCFACE_TEMPLATE, dtype=torch.float64)[None]
    torch.testing.assert_close(align_faces(picture, template), picture)


def test_several_faces_of_one_picture():
    pictures = torch.rand(2, 3, 150, 150)
    landmarks = torch.from_numpy(np.stack([FACE, FACE + 20, rotated(FACE, 30, 1, (40, 0))]))
    together = align_faces(pictures, landmarks, picture_index=torch.tensor([1, 0, 1]))
    for face, picture in enumerate((1, 0, 1)):
        alone = align_faces(pictures[picture : picture + 1], landmarks[face : face + 1])
        torch.testing.assert_close(together[face : face + 1], alone)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (torch.zeros(1, 5, 2), "one point"),
        (torch.full((1, 5, 2), float("nan")), "finite"),
        (torch.zeros(1, 4, 2), "5, 2"),
        (torch.rand(2, 5, 2), "picture_index"),
    ],
)
def test_alignment_refuses_bad_landmarks(landmarks, message):
    with pytest.raises(ValueError, match=message):
        align_faces(torch.rand(1, 3, 64, 64), landmarks)


def test_gradient_through_warp_and_encoder_equals_finite_differences(recogniser):
    encoder = FaceEncoder.from_onnx(recogniser).double()
    generator = torch.Generator().manual_seed(2)
    picture = torch.rand(1, 3, 40, 40, generator=generator, dtype=torch.float64)
    landmarks = torch.from_numpy(rotated(FACE, 15, 0.35, (6, 0))).double()[None]
    target = torch.nn.functional.normalize(torch.randn(24, generator=generator, dtype=torch.float64), dim=0)

    def similarity(pixels, points):
        return (encoder.embed_faces(pixels, points) @ target).sum()

    pixels, points = picture.clone().requires_grad_(), landmarks.clone().requires_grad_()
    similarity(pixels, points).backward()
    assert pixels.grad.abs().max() > 1e-5
    for value, gradient, step in ((picture, pixels.grad, 1e-7), (landmarks, points.grad, 1e-7)):
        direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        ends = [
            similarity(*(v + sign * step * direction if v is value else v for v in (picture, landmarks)))
            for sign in (1, -1)
        ]
        numeric = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close((gradient * direction).sum(), numeric, rtol=1e-4, atol=1e-9)


@pytest.mark.shared
@pytest.mark.skipif(not REAL_RECOGNISER.is_file(), reason="the real recogniser is not beside the repository")
def test_real_recogniser_equals_onnx_runtime():
    encoder = FaceEncoder.from_onnx(REAL_RECOGNISER)
    blob = torch.rand(4, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    np.testing.assert_allclose(encoder.features(blob).numpy(), run_onnx(REAL_RECOGNISER, blob), atol=1e-4)
    assert encoder.embedding_size == 128


def test_weights_are_read_exactly(recogniser):
    first = next(t for t in onnx.load(recogniser).graph.initializer if t.name == "stem.weight")
    encoder = FaceEncoder.from_onnx(recogniser)
    assert any(
        buffer.shape == tuple(first.dims) and np.array_equal(buffer.numpy(), numpy_helper.to_array(first))
        for buffer in encoder.buffers()
    )
