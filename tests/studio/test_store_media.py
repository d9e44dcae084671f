"""Files: named by content, whole or absent, gone when nothing needs them."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from studio.store import StoreError
from studio.store.models import Media
from tests.studio.store_samples import add_generation


def test_content_names_the_file(store):
    content = b"some picture"
    sha256 = store.media.add(content, ".png")
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert store.media.path(sha256).name == f"{sha256}.png"
    assert store.media.read(sha256) == content


def test_the_same_content_is_one_file(store):
    assert store.media.add(b"x", ".png") == store.media.add(b"x", ".jpg")
    assert len([path for path in store.media.folder.rglob("*") if path.suffix in (".png", ".jpg")]) == 1


def test_many_threads_may_add_the_same(store):
    with ThreadPoolExecutor(8) as pool:
        hashes = set(pool.map(lambda _: store.media.add(b"x" * 100_000, ".png"), range(16)))
    assert len(hashes) == 1
    assert not list(store.media.folder.rglob("*.tmp"))


@pytest.mark.parametrize("suffix", [".html", ".svg", "png", "", ".png/../x", ".PNG"])
def test_what_a_browser_would_run_is_not_kept(store, suffix):
    with pytest.raises(StoreError, match="not kept"):
        store.media.add(b"<script>", suffix)


def test_a_stream_that_breaks_leaves_nothing(store):
    class Breaks(io.RawIOBase):
        def read(self, size=-1):
            raise OSError("disk gone")

    with pytest.raises(StoreError, match="disk gone"):
        store.media.add_stream(Breaks(), ".png")
    assert [path.name for path in store.media.folder.iterdir()] in ([], [".lock"])


def test_other_content_than_expected_is_refused(store):
    with pytest.raises(StoreError, match="damaged"):
        store.media.add_stream(io.BytesIO(b"x"), ".png", expected="0" * 64)
    with pytest.raises(StoreError, match="No file"):
        store.media.path(hashlib.sha256(b"x").hexdigest())


def test_damage_is_noticed_and_mended_by_adding_again(store):
    sha256 = store.media.add(b"whole content", ".png")
    store.media.path(sha256).write_bytes(b"who")
    with pytest.raises(StoreError, match="damaged"):
        store.media.read(sha256)
    store.media.add(b"whole content", ".png")
    assert store.media.read(sha256) == b"whole content"


def test_a_missing_file_says_so(store):
    sha256 = store.media.add(b"x", ".png")
    store.media.path(sha256).unlink()
    with pytest.raises(StoreError, match="missing"):
        store.media.path(sha256)


def test_sweeping_removes_only_what_nothing_uses(store):
    unused = store.media.add(b"unused", ".png")
    used = add_generation(store).candidates[0].media_sha256
    (store.media.folder / ".half.tmp").write_bytes(b"half")
    assert store.media.sweep() == 0
    # Killed between forgetting the row and removing the file.
    forgotten = store.media.path(store.media.add(b"forgotten", ".png"))
    with store.database.write() as session:
        session.execute(sa.delete(Media).where(Media.sha256 == forgotten.stem))
    assert store.media.sweep(older_than=timedelta(0)) == 3
    assert not forgotten.exists()
    assert store.media.path(used).exists()
    with pytest.raises(StoreError, match="No file"):
        store.media.path(unused)
    assert not (store.media.folder / ".half.tmp").exists()


def test_content_added_again_before_the_file_goes_stays(store):
    sha256 = store.media.add(b"x", ".png")
    with store.database.write() as session:
        paths = store.media.remove_unreferenced(session, [sha256])
    store.media.add(b"x", ".png")
    store.media.unlink(paths)
    assert store.media.read(sha256) == b"x"
