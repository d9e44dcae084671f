"""The named endpoints, called as a program would call them."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("portraits")
    for name in ("Ada", "Grace"):
        Image.effect_noise((128, 128), 40).convert("RGB").save(folder / f"{name}.png")
    return [handle_file(folder / "Ada.png"), handle_file(folder / "Grace.png")]


def test_generate_pick_and_export(client, server, portraits):
    made = client.predict(
        portraits, scene="in a park", schedule="gate-0.3-0.6", candidates=2, steps=2, consent=True, annotator="Ada",
        api_name="/generate",
    )  # fmt: skip
    assert made["schedule"] == "gate-0.3-0.6"
    first, second = made["candidates"]
    assert (first["seed"], second["seed"]) == (0, 1)
    assert first["face_pack"] == "tiny"
    row = server.store.generations.get(made["generation"])
    assert [reference.portrait.person.name for reference in row.references] == ["Ada", "Grace"]

    sent = {"candidates": [second["id"], first["id"]], "outcome": "left", "annotator": "Ada", "request_id": "once"}
    kept = [client.predict(**sent, api_name="/pick") for _ in range(2)]
    assert kept[0] == kept[1]
    assert server.store.picks.get(kept[0]["pick"]).winner_id == second["id"]

    exported = client.predict(kind="parquet", api_name="/export")
    rows = pq.read_table(Path(exported["file"])).to_pylist()
    (pick,) = [line for line in rows if line["pick_id"] == kept[0]["pick"]]
    assert (pick["image_0_uid"], pick["label_0"]) == (second["id"], 1.0)
    assert pick["references"] == []


def test_write_prompt(client, portraits):
    assert isinstance(client.predict(portraits, scene="at sunset", api_name="/write_prompt"), str)
    aged = {"task": "child", "ages": [6, 70]}
    assert isinstance(client.predict(portraits, **aged, api_name="/write_prompt"), str)


def test_people_can_be_asked_for_at_an_age_and_guided_by_their_portraits(client, server, portraits):
    made = client.predict(
        portraits, task="child", ages=[6, None], schedule="gate-0.3-0.6", identity_guidance=2.5, candidates=1, steps=2,
        consent=True, api_name="/generate",
    )  # fmt: skip
    assert "6-year-old child from image 1" in made["prompt"]
    row = server.store.generations.get(made["generation"])
    assert [reference.target_age for reference in row.references] == [6, None]
    assert row.identity_guidance == 2.5


@pytest.mark.parametrize("wanted", [True, False])
def test_faces_are_painted_once_more_unless_somebody_says_no(client, server, portraits, wanted):
    made = client.predict(
        portraits, candidates=1, steps=2, consent=True, face_detail=wanted, api_name="/generate",
    )  # fmt: skip
    assert ("face detail" in server.store.generations.get(made["generation"]).timings) == wanted


def test_what_cannot_be_done_is_said_in_a_sentence(client, server, portraits):
    with pytest.raises(AppError, match="consent"):
        client.predict(portraits, api_name="/generate")
    with pytest.raises(AppError, match="no uploaded file"):
        client.predict([{"path": "/etc/passwd"}], consent=True, api_name="/generate")
    with pytest.raises(AppError, match="gate"):
        client.predict(portraits, schedule="sometimes", consent=True, api_name="/generate")
    child = {"task": "child", "consent": True, "api_name": "/generate"}
    with pytest.raises(AppError, match="Age '200'"):
        client.predict(portraits, ages=[6, 200], **child)
    with pytest.raises(AppError, match="3 ages were given for 2 portraits"):
        client.predict(portraits, ages=[6, 7, 8], **child)
    with pytest.raises(AppError, match="only 'child'"):
        client.predict(portraits, ages=[6, 7], consent=True, api_name="/generate")
    with pytest.raises(AppError, match="does not exist"):
        client.predict(["0" * 32, "1" * 32], "left", api_name="/pick")
    assert not [person for person in server.store.people.list() if person.name == "passwd"]
