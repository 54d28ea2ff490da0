"""The artefact store: what goes in comes out, and nothing else does."""

from __future__ import annotations

import hashlib
import uuid

import pytest

from errors import ArtefactRefused, InvalidInput, NotFound, TooLarge, Unavailable
from registry.store import ArtefactStore

CONTENT = b"model" * 1000
DIGEST = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
ABSENT = "sha256:" + "0" * 64


@pytest.fixture(params=["path", "file", "memory"])
def store(request, tmp_path):
    if request.param == "memory":
        return ArtefactStore(f"memory://{uuid.uuid4()}")
    folder = tmp_path / "arte facts"
    return ArtefactStore(str(folder) if request.param == "path" else folder.as_uri())


def files_of(store: ArtefactStore) -> list[str]:
    return store._files.find(store._root)


def test_content_is_found_by_its_digest(store, tmp_path):
    assert not store.exists(DIGEST)
    assert store.put([CONTENT[:7], b"", CONTENT[7:]], max_bytes=len(CONTENT)) == (DIGEST, len(CONTENT))
    assert store.exists(DIGEST)
    with store.open(DIGEST) as file:
        assert file.read() == CONTENT
    assert store.fetch(DIGEST, tmp_path / "cache").read_bytes() == CONTENT


def test_the_same_content_twice_is_one_file(store):
    assert store.put([CONTENT], 10_000) == store.put([CONTENT], 10_000)
    assert len(files_of(store)) == 1


def test_nothing_is_kept_of_what_is_too_large_or_breaks_off(store):
    def broken():
        yield CONTENT
        raise ConnectionResetError("gone")

    store.put([b"other"], 10)
    with pytest.raises(TooLarge, match="4,999"):
        store.put([CONTENT], 4999)
    with pytest.raises((ConnectionResetError, Unavailable), match="gone"):
        store.put(broken(), 10_000)
    assert len(files_of(store)) == 1


def test_what_is_absent(store, tmp_path):
    assert not store.exists(ABSENT)
    with pytest.raises(NotFound, match=ABSENT):
        store.open(ABSENT)
    with pytest.raises(NotFound, match=ABSENT):
        store.fetch(ABSENT, tmp_path)


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:00", DIGEST.upper(), DIGEST + "\n", ""])
def test_a_digest_is_no_path(store, digest):
    with pytest.raises(InvalidInput, match="digest"):
        store.open(digest)


def test_changed_content_is_refused(store, tmp_path):
    store.put([CONTENT], 10_000)
    with store._files.open(store._place(DIGEST), "wb") as file:
        file.write(b"M" + CONTENT[1:])
    with pytest.raises(ArtefactRefused, match=DIGEST):
        store.fetch(DIGEST, tmp_path / "cache")
    assert [path.suffix for path in tmp_path.glob("cache/*")] == [".verified"]  # nothing else of it is kept
    with pytest.raises(ArtefactRefused, match=DIGEST):
        store.fetch(DIGEST, tmp_path / "cache")


def test_a_damaged_cache_is_fetched_again(tmp_path):
    store = ArtefactStore(f"memory://{uuid.uuid4()}")
    store.put([CONTENT], 10_000)
    path = store.fetch(DIGEST, tmp_path)
    path.write_bytes(b"damaged")
    assert store.fetch(DIGEST, tmp_path).read_bytes() == CONTENT


def test_a_folder_with_a_space_in_its_uri(tmp_path):
    ArtefactStore((tmp_path / "my data").as_uri()).put([CONTENT], 10_000)
    assert [path.name for path in tmp_path.iterdir()] == ["my data"]


def test_a_local_artefact_is_not_copied(tmp_path):
    store = ArtefactStore(str(tmp_path / "store"))
    store.put([CONTENT], 10_000)
    assert store.fetch(DIGEST, tmp_path / "cache").is_relative_to(tmp_path / "store")
    assert not (tmp_path / "cache" / DIGEST.removeprefix("sha256:")).exists()


def test_what_was_verified_is_verified_again_only_when_it_was_written_to(tmp_path, monkeypatch):
    store = ArtefactStore(f"memory://{uuid.uuid4()}")
    store.put([CONTENT], 10_000)
    path = store.fetch(DIGEST, tmp_path)
    read: list[str] = []
    monkeypatch.setattr("registry.store._digest_of", lambda path: read.append(str(path)) or DIGEST)
    assert store.fetch(DIGEST, tmp_path) == path
    assert read == []
    path.write_bytes(CONTENT)
    store.fetch(DIGEST, tmp_path)
    assert read == [str(path)]


def test_what_a_killed_upload_left_is_swept_and_nothing_else(tmp_path):
    store = ArtefactStore(str(tmp_path / "store"))
    assert store.sweep(0) == 0, "nothing was ever put"
    store.put([CONTENT], 10_000)
    (tmp_path / "store" / "incoming" / "abandoned").write_bytes(b"half")
    assert store.sweep(3600) == 0, "somebody may still write to it"
    assert store.sweep(-1) == 1
    assert store.exists(DIGEST)
    assert [place.rpartition("/")[2] for place in files_of(store)] == [DIGEST.removeprefix("sha256:")]
