"""Bundles: cards, folders, and downloads from a hub that is a folder behind a local web server."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from core.backbones.bundles import load_bundle
from core.backbones.cards import BUNDLES, MINI, BundleCard, BundleError, find_card, write_card
from core.sampler import initial_noise
from tests.tiny_bundles import write_tiny_bundle

COMMIT = "c" * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


def test_the_table_says_what_a_person_must_know_before_downloading():
    assert set(BUNDLES) == {"mini", "qwen-image-edit-2511", "qwen-image-2.1"}
    for card in BUNDLES.values():
        assert card.licence
        assert card.memory_gb > 0
        assert (card.revision is None) == (card.download_gb == 0)
    assert "non-commercial" in BUNDLES["qwen-image-2.1"].licence


def test_a_card_survives_its_file_and_a_moved_folder(tmp_path):
    card = dataclasses.replace(MINI, height=128, width=192, reference_side=96)
    write_card(tmp_path, card)
    (tmp_path / "model_index.json").write_text("{}")
    moved = tmp_path.rename(tmp_path.parent / "moved")
    assert find_card(moved) == dataclasses.replace(card, source=str(moved))


def test_a_card_says_whether_its_bundle_paints_faces_once_more(tmp_path):
    without = write_tiny_bundle(tmp_path / "without")
    with_faces = write_tiny_bundle(tmp_path / "with", face_detail=True)
    assert [find_card(folder).has_face_detail for folder in (without, with_faces)] == [False, True]
    assert not BUNDLES["qwen-image-2.1"].has_face_detail


def test_loading_a_folder(folder):
    bundle = load_bundle(folder)
    assert bundle.card.name == "tiny"
    assert bundle.backbone.transformer.dtype == torch.float32
    assert not any(p.requires_grad for p in bundle.backbone.transformer.parameters())
    assert load_bundle(folder, dtype=torch.bfloat16).backbone.transformer.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["qwen-image-2.1", "qwen-image-edit-plus"])
def test_the_transformer_alone_can_compute_in_half_precision_on_a_cpu(family, tmp_path):
    folder = write_tiny_bundle(tmp_path / "tiny", family=family)
    full, half = load_bundle(folder), load_bundle(folder, precision="bfloat16")
    assert half.backbone.transformer.dtype == torch.bfloat16
    assert half.text_encoder.dtype == half.pipeline.vae.dtype == torch.float32
    x_t, sigma = initial_noise([0], full.backbone.latent_shape(64, 64)), torch.tensor([0.75])
    velocities = []
    for bundle in (full, half):
        conditioning = bundle.backbone.encode_prompt("two people", [np.full((64, 64, 3), 90, np.uint8)])
        with torch.no_grad():
            velocities.append(bundle.backbone.velocity(bundle.backbone.prefill(conditioning), x_t, sigma))
    assert velocities[1].dtype == torch.float32
    error = (velocities[1] - velocities[0]).norm() / velocities[0].norm()
    assert 0 < error < 0.03  # eight bits of mantissa


def test_the_revision_of_a_folder_changes_with_its_weights_alone(folder, tmp_path):
    revision = load_bundle(folder).revision
    same = write_tiny_bundle(tmp_path / "same")
    other = write_tiny_bundle(tmp_path / "other", seed=1)
    assert load_bundle(same).revision == revision
    assert load_bundle(other).revision != revision


def test_a_diffusers_folder_without_a_card_takes_the_hub_bundles_sizes(folder, tmp_path):
    (tmp_path / "model_index.json").write_text((folder / "model_index.json").read_text())
    card = find_card(tmp_path)
    assert (card.family, card.reference_side, card.text_first) == ("qwen-image-2.1", 1024, False)
    assert card.licence == "unknown, see its source"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-bundle", "There is no bundle 'no-such-bundle': give one of mini, qwen-image-edit-2511"),
        ("mini", "python -m trainers.mini.vae"),
    ],
)
def test_what_is_not_there_is_said_with_what_to_do(name, message, tmp_path, monkeypatch):
    monkeypatch.setitem(BUNDLES, "mini", dataclasses.replace(MINI, source=str(tmp_path / "mini")))
    with pytest.raises(BundleError, match=message):
        load_bundle(name)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("bundle.json", "{", "not a bundle's card"),
        ("bundle.json", '{"name": "x"}', "not a bundle's card"),
        ("model_index.json", '{"_class_name": "OtherPipeline"}', "holds a OtherPipeline"),
    ],
)
def test_a_folder_of_another_kind_is_refused(tmp_path, file, content, message):
    (tmp_path / "model_index.json").write_text("{}")
    (tmp_path / file).write_text(content)
    with pytest.raises(BundleError, match=message):
        find_card(tmp_path)


def test_damaged_weights_are_an_error_that_names_the_folder(tmp_path):
    damaged = write_tiny_bundle(tmp_path / "damaged")
    weights = next((damaged / "transformer").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(BundleError, match=r"damaged cannot be loaded .* restore its files"):
        load_bundle(damaged)


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "other"}, {"dtype": "int4"}, {"steps": 0}, {"family": "qwen-image-edit-plus"},
        {"child_schedule": "early"},
    ],
)  # fmt: skip
def test_a_card_that_makes_no_sense_is_refused(changes):
    with pytest.raises(ValueError, match=r"family|dtype|steps|text_first|schedule"):
        BundleCard(**{**dataclasses.asdict(MINI), **changes})


# --- downloads


@dataclasses.dataclass
class Hub:
    """What huggingface_hub asks of a hub, for one repository that is `folder`.

    breaks_at: a file whose second half never arrives.
    asked: (method, path, first byte) of every file request.
    """

    folder: Path
    breaks_at: str | None = None
    asked: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)

    def files(self) -> list[Path]:
        return [file for file in sorted(self.folder.rglob("*")) if file.is_file()]


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            path = self.path.partition("?")[0]
            marker = f"/resolve/{COMMIT}/"
            if marker in path:
                self.send_file(path.partition(marker)[2])
            elif "/tree/" in path:
                self.send_json([self.entry(file) for file in hub.files()])
            else:
                names = [{"rfilename": file.relative_to(hub.folder).as_posix()} for file in hub.files()]
                self.send_json({"id": "tiny/bundle", "modelId": "tiny/bundle", "sha": COMMIT, "siblings": names})

        def entry(self, file: Path) -> dict:
            name = file.relative_to(hub.folder).as_posix()
            return {"type": "file", "path": name, "size": file.stat().st_size, "oid": self.tag(file)}

        def tag(self, file: Path) -> str:
            return hashlib.sha1(file.read_bytes()).hexdigest()

        def send_json(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def send_file(self, name: str) -> None:
            file = hub.folder / name
            content = file.read_bytes()
            first = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            hub.asked.append((self.command, name, first))
            self.send_response(206 if first else 200)
            self.send_header("ETag", f'"{self.tag(file)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(content) - first))
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if self.command != "GET":
                return
            if name == hub.breaks_at:
                self.wfile.write(content[first : max(first, len(content) // 2)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(content[first:])

    return Handler


@pytest.fixture
def hub(folder) -> Iterator[tuple[Hub, str]]:
    """A hub that serves the tiny bundle, and its address."""
    hub = Hub(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def tiny_hub(hub, tmp_path, monkeypatch) -> Hub:
    """The hub as huggingface_hub's default, with an empty cache, and a bundle of it in the table."""
    served, address = hub
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "".join(template[1:]))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    card = dataclasses.replace(BUNDLES["qwen-image-2.1"], name="tiny-hub", source="tiny/bundle", revision="main")
    monkeypatch.setitem(BUNDLES, "tiny-hub", card)
    return served


def test_hub_weights_come_only_on_an_explicit_yes_and_once(tiny_hub):
    with pytest.raises(BundleError, match=r"licence: Qwen Research License.*Nothing is downloaded without"):
        load_bundle("tiny-hub")
    assert not tiny_hub.asked

    progress: list[tuple[int, int]] = []
    bundle = load_bundle("tiny-hub", allow_download=True, progress=lambda *numbers: progress.append(numbers))
    assert bundle.revision == COMMIT
    done, total = progress[-1]
    assert done == total == sum(file.stat().st_size for file in tiny_hub.files())

    tiny_hub.asked.clear()
    assert load_bundle("tiny-hub").revision == COMMIT
    assert not tiny_hub.asked


def test_a_broken_download_is_resumed_and_a_failed_one_keeps_finished_files(tiny_hub, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    name = "transformer/diffusion_pytorch_model.safetensors"
    tiny_hub.breaks_at = name
    with pytest.raises(BundleError, match=r"Finished files are kept; try again to go on"):
        load_bundle("tiny-hub", allow_download=True)
    fetched = [(asked, first) for method, asked, first in tiny_hub.asked if method == "GET"]
    assert max(first for asked, first in fetched if asked == name) > 0

    tiny_hub.asked.clear()
    tiny_hub.breaks_at = None
    assert load_bundle("tiny-hub", allow_download=True).revision == COMMIT
    again = {asked for method, asked, _ in tiny_hub.asked if method == "GET"}
    assert again.isdisjoint({asked for asked, _ in fetched} - {name})


def test_without_a_network_it_says_what_to_do(tiny_hub, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BundleError, match=r"try again"):
        load_bundle("tiny-hub", allow_download=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match=r"cannot be reached.*give its folder as the bundle"):
        load_bundle("tiny-hub", allow_download=True)
