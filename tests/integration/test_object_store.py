"""The artefact store in a bucket: streamed in, verified on the way out, fetched once per host."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from object_store import BUCKET, s3_server

from errors import ArtefactRefused, NotFound, Unavailable
from registry.store import ArtefactStore

MIB = 1 << 20
CONTENT = os.urandom(MIB)
ABSENT = "sha256:" + "0" * 64


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[Any]:
    with s3_server() as server:
        yield server


@pytest.fixture
def url() -> str:
    return f"s3://{BUCKET}/{uuid.uuid4()}"


def test_a_stream_of_many_parts_comes_out_as_it_went_in(url: str, tmp_path: Path) -> None:
    store = ArtefactStore(url)
    blocks = 60  # s3fs sends parts of 50 MiB
    digest, size = store.put((CONTENT for _ in range(blocks)), max_bytes=blocks * MIB)
    assert size == blocks * MIB
    assert digest == "sha256:" + hashlib.sha256(CONTENT * blocks).hexdigest()
    assert store.fetch(digest, tmp_path).read_bytes() == CONTENT * blocks
    prefix = url.removeprefix(f"s3://{BUCKET}/")
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    assert [item["Key"] for item in found] == [f"{prefix}/sha256/{digest[7:9]}/{digest[7:]}"]


def test_a_flipped_byte_is_refused_and_not_kept(url: str, tmp_path: Path) -> None:
    store = ArtefactStore(url)
    digest, _ = store.put([CONTENT], MIB)
    key = f"{url.removeprefix(f's3://{BUCKET}/')}/sha256/{digest[7:9]}/{digest[7:]}"
    boto3.client("s3").put_object(Bucket=BUCKET, Key=key, Body=bytes([CONTENT[0] ^ 1]) + CONTENT[1:])
    with pytest.raises(ArtefactRefused, match="was changed or damaged"):
        store.fetch(digest, tmp_path)
    assert not (tmp_path / digest[7:]).exists()


class Counted(ArtefactStore):
    """Counts what it downloads."""

    downloads = 0

    def open(self, digest: str) -> Any:
        self.downloads += 1
        return super().open(digest)


def _fetch(url: str, digest: str, folder: Path, barrier: Any, downloads: Any) -> None:
    store = Counted(url)
    barrier.wait(60)
    store.fetch(digest, folder)
    downloads.put(store.downloads)


def test_processes_that_fetch_at_once_download_once(url: str, tmp_path: Path) -> None:
    digest, _ = ArtefactStore(url).put([CONTENT] * 8, 8 * MIB)
    processes = 3
    spawn = multiprocessing.get_context("spawn")
    barrier, downloads = spawn.Barrier(processes), spawn.Queue()
    children = [
        spawn.Process(target=_fetch, args=(url, digest, tmp_path, barrier, downloads)) for _ in range(processes)
    ]
    for child in children:
        child.start()
    counts = sorted(downloads.get(timeout=120) for _ in children)
    for child in children:
        child.join(60)
    assert counts == [0] * (processes - 1) + [1]


def test_what_is_absent_is_told_from_what_cannot_be_reached(url: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=ABSENT):
        ArtefactStore(url).fetch(ABSENT, tmp_path)
    with pytest.raises(Unavailable, match=r"no-such-bucket.*check SCOREHOUSE_ARTEFACT_URL"):
        ArtefactStore("s3://no-such-bucket/models").put([CONTENT], MIB)
    assert [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]] == [BUCKET]
