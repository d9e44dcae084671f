import json
import os
import shutil
import threading
from pathlib import Path

import cv2
import insightface
import numpy as np
import onnx
import pytest

from core.faces import FaceAnalyzer, FacePackError, default_pack, find_pack
from tests.core.face_models import arcface_model, constant_detector, write_pack

SHARED = Path(os.environ.get("IDGLOW_SHARED", Path(__file__).resolve().parents[3] / "shared"))
REAL_PACK = SHARED / "real/packs/real_500m"
PHOTOS = SHARED / "real/photos"
SAMPLE = Path(insightface.__file__).parent / "data/images/t1.jpg"
needs_real_pack = pytest.mark.skipif(not REAL_PACK.is_dir(), reason="the real face pack is not beside the repository")
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="the photographs are not beside the repository")


def read_picture(file):
    return np.ascontiguousarray(cv2.imread(str(file))[..., ::-1])


def noise_picture(size=128):
    """What `constant_detector` takes for faces: the detector is constant, the recogniser sees the pixels."""
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)


@pytest.fixture
def analyzer(tmp_path):
    return FaceAnalyzer(write_pack(tmp_path / "pack"), detection_sizes=((128, 128),), threads=1)


def test_faces_come_left_to_right_with_everything_the_pack_says(analyzer):
    faces = analyzer.analyze(noise_picture())
    assert [round(face.center[0]) for face in faces] == [32, 64, 104]
    for face in faces:
        assert face.box.shape == (4,)
        assert face.landmarks.shape == (5, 2)
        assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
        assert 0 < face.score < 1
        assert face.sex == "male"
        assert face.age == 37
    assert np.all(faces[0].landmarks >= faces[0].box[:2] - 1e-3)
    assert np.all(faces[0].landmarks <= faces[0].box[2:] + 1e-3)


def test_pack_without_attributes_has_no_sex_and_age(tmp_path):
    pack = write_pack(tmp_path / "pack", attributes=False)
    faces = FaceAnalyzer(pack, detection_sizes=((128, 128),), threads=1).analyze(noise_picture())
    assert faces[0].sex is None
    assert faces[0].age is None


def test_embedding_is_that_of_the_rgb_picture(analyzer):
    from core.face_encoder import FaceEncoder

    torch = pytest.importorskip("torch")
    # Smooth, so that OpenCV's rounding of positions in the warp does not matter.
    picture = cv2.GaussianBlur(noise_picture(), (0, 0), 4)
    picture = np.clip((picture.astype(float) - 127) * 6 + [180, 120, 60], 0, 255).astype(np.uint8)
    encoder = FaceEncoder.from_onnx(analyzer.recogniser_path)

    def embed(rgb, landmarks):
        pixels = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
        return encoder.embed_faces(pixels, torch.from_numpy(landmarks)[None])[0].numpy()

    face = analyzer.analyze(picture)[1]
    assert embed(picture, face.landmarks) @ face.embedding > 0.999
    assert embed(picture[..., ::-1], face.landmarks) @ face.embedding < 0.995


def test_threads_share_one_analyzer(analyzer):
    pictures = [np.roll(noise_picture(), 7 * k, axis=1) for k in range(4)]
    expected = [[face.embedding for face in analyzer.analyze(picture)] for picture in pictures]
    results = [None] * 16

    def work(index):
        results[index] = [face.embedding for face in analyzer.analyze(pictures[index % 4])]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, result in enumerate(results):
        np.testing.assert_array_equal(result, expected[index % 4])


@pytest.mark.parametrize(
    "picture",
    [
        None,
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_picture_is_refused(analyzer, picture):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) of uint8"):
        analyzer.analyze(picture)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 2000, 3), (2000, 3, 3)])
def test_slivers_are_analysed(analyzer, shape):
    for face in analyzer.analyze(np.full(shape, 128, np.uint8)):
        assert np.isfinite(face.embedding).all()


def test_missing_pack_says_where_licence_and_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FacePackError) as error:
        FaceAnalyzer("buffalo_x")
    message = str(error.value)
    assert str(tmp_path / ".insightface/models/buffalo_x") in message
    assert "non-commercial" in message
    assert "insightface-cli model.download buffalo_x" in message
    assert not (tmp_path / ".insightface").exists()


def test_missing_default_pack_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr("core.faces.default_pack", lambda: tmp_path / "faces")
    with pytest.raises(FacePackError, match=r"git checkout -- assets/faces"):
        FaceAnalyzer(tmp_path / "faces")


def test_pack_is_found_by_the_name_insightface_installs_it_under(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    pack = write_pack(tmp_path / ".insightface/models/some_pack")
    monkeypatch.chdir(tmp_path)
    assert find_pack("some_pack") == pack


def test_pack_without_a_recogniser_is_refused(tmp_path):
    pack = write_pack(tmp_path / "pack", attributes=False)
    (pack / "recogniser.onnx").unlink()
    with pytest.raises(FacePackError, match="no recognition model"):
        FaceAnalyzer(pack)


def test_pack_without_a_detector_is_refused(tmp_path):
    (tmp_path / "pack").mkdir()
    onnx.save(arcface_model(), tmp_path / "pack/recogniser.onnx")
    with pytest.raises(FacePackError, match="no detector"):
        FaceAnalyzer(tmp_path / "pack")


def test_manifest_names_the_pack_and_every_file_is_verified(tmp_path):
    pack = write_pack(tmp_path / "pack", manifest=True)
    analyzer = FaceAnalyzer(pack, detection_sizes=((128, 128),), threads=1)
    assert (analyzer.name, analyzer.licence, analyzer.same_person_threshold) == ("tiny", "Apache-2.0", 0.25)
    assert analyzer.analyze(noise_picture())[0].age == 37
    for name in ("detector.onnx", "recogniser.onnx", "attributes.onnx"):
        damaged = tmp_path / f"damaged_{name}"
        shutil.copytree(pack, damaged)
        content = bytearray((damaged / name).read_bytes())
        content[len(content) // 2] ^= 1
        (damaged / name).write_bytes(content)
        with pytest.raises(FacePackError, match=r"SHA-256"):
            FaceAnalyzer(damaged)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_unreadable_manifest_is_refused(tmp_path, content):
    pack = write_pack(tmp_path / "pack")
    (pack / "manifest.json").write_text(content)
    with pytest.raises(FacePackError, match=r"manifest\.json"):
        FaceAnalyzer(pack)


def test_licence_of_a_pack_that_states_none_is_insightfaces(analyzer):
    assert "non-commercial" in analyzer.licence
    assert analyzer.name == "pack"


def test_embedding_size_is_read(tmp_path):
    pack = write_pack(tmp_path / "pack", attributes=False)
    assert FaceAnalyzer(pack).embedding_size == 16
    model = onnx.load(pack / "recogniser.onnx")
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "size"
    onnx.save(model, pack / "recogniser.onnx")
    assert FaceAnalyzer(pack).embedding_size == 16


def test_providers_are_explicit(tmp_path):
    pack = write_pack(tmp_path / "pack")
    assert FaceAnalyzer(pack).providers == ("CPUExecutionProvider",)
    with pytest.raises(ValueError, match="NoSuchProvider"):
        FaceAnalyzer(pack, providers=("NoSuchProvider",))
    with pytest.raises(ValueError, match="detection_sizes"):
        FaceAnalyzer(pack, detection_sizes=((100, 100),))
    with pytest.raises(ValueError, match="detection_threshold"):
        FaceAnalyzer(pack, detection_threshold=0)


def test_a_face_inside_a_face_is_none(analyzer):
    from core.faces import Face, _without_faces_in_faces

    def face(box, score):
        return Face(np.array(box, np.float32), np.zeros((5, 2)), np.ones(1), score)

    large, nose, neighbour = face([0, 0, 100, 100], 0.8), face([40, 40, 60, 65], 0.6), face([80, 20, 150, 90], 0.7)
    assert _without_faces_in_faces([nose, large, neighbour]) == [large, neighbour]
    frame, person = face([0, 0, 200, 200], 0.5), face([10, 10, 60, 60], 0.9)
    assert _without_faces_in_faces([frame, person]) == [person]


def test_pack_may_say_which_views_its_detector_needs(tmp_path):
    pack = write_pack(tmp_path / "pack", manifest=True)
    manifest = json.loads((pack / "manifest.json").read_text())
    for sizes, count in (([[128, 128]], 3), ([[100, 100]], None)):
        (pack / "manifest.json").write_text(json.dumps(manifest | {"detection_sizes": sizes}))
        if count is None:
            with pytest.raises(ValueError, match="multiples of 32"):
                FaceAnalyzer(pack)
        else:
            assert len(FaceAnalyzer(pack, threads=1).analyze(noise_picture())) == count


def test_default_pack_lies_in_assets():
    assert default_pack().parts[-2:] == ("assets", "faces")


def test_manifest_is_the_one_insightface_enforces(tmp_path):
    from insightface.app import FaceAnalysis

    pack = write_pack(tmp_path / "models/tiny", manifest=True)
    app = FaceAnalysis(name="tiny", root=str(tmp_path), providers=["CPUExecutionProvider"])
    assert sorted(app.models) == ["detection", "recognition"]
    manifest = json.loads((pack / "manifest.json").read_text())
    manifest["tasks"]["recognition"]["sha256"] = "0" * 64
    (pack / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RuntimeError, match="SHA-256"):
        FaceAnalysis(name="tiny", root=str(tmp_path), providers=["CPUExecutionProvider"])


def test_detector_of_these_tests_has_scrfd_form():
    assert len(constant_detector().graph.output) == 9


@pytest.fixture(scope="module")
def real_analyzer():
    return FaceAnalyzer(REAL_PACK, threads=1)


@pytest.mark.shared
@needs_real_pack
def test_six_faces_on_insightfaces_own_photograph(real_analyzer):
    faces = real_analyzer.analyze(read_picture(SAMPLE))
    assert len(faces) == 6
    assert [face.center[0] for face in faces] == sorted(face.center[0] for face in faces)
    assert (real_analyzer.embedding_size, faces[0].embedding.shape) == (128, (128,))
    for face in faces:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert left_eye[1] < nose[1] < left_mouth[1]


@pytest.mark.shared
@needs_real_pack
@needs_photos
def test_faces_that_fill_the_picture_are_found(real_analyzer):
    assert len(real_analyzer.analyze(read_picture(SHARED / "real/awkward/tight_crop.jpg"))) == 1
    only_large = FaceAnalyzer(REAL_PACK, threads=1, detection_sizes=((640, 640),))
    sample = read_picture(SAMPLE)
    left, top, right, bottom = real_analyzer.analyze(sample)[4].box.astype(int)
    close = cv2.resize(sample[top:bottom, left:right], None, fx=5, fy=5)
    assert len(real_analyzer.analyze(close)) == 1
    assert len(only_large.analyze(close)) <= 1


@pytest.mark.shared
@needs_real_pack
@needs_photos
def test_photographs_separate_the_same_from_different_people(real_analyzer):
    people, embeddings = [], []
    for file in sorted(PHOTOS.glob("ids/*/*")):
        faces = real_analyzer.analyze(read_picture(file))
        if len(faces) == 1:
            people.append(file.parent.name)
            embeddings.append(faces[0].embedding)
    similarity = np.stack(embeddings) @ np.stack(embeddings).T
    same = np.equal.outer(people, people)
    upper = np.triu(np.ones_like(same), 1).astype(bool)
    of_same, of_different = similarity[same & upper], similarity[~same & upper]
    print(
        f"{len(people)} faces: same {of_same.mean():.3f} (least {of_same.min():.3f}), "
        f"different {of_different.mean():.3f} (most {of_different.max():.3f})"
    )
    area = (of_same[:, None] > of_different[None]).mean()
    assert area > 0.99
    assert of_same.mean() - of_different.mean() > 0.4
