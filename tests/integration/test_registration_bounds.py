"""What the API takes in of a registration: bounds of its files, and a store that does not take them."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from object_store import s3_server

from api.app import create_app
from api.tokens import create_token
from registry.store import ArtefactStore
from settings import Settings

Post = Callable[..., Any]


@pytest.fixture
def post(database_url: str, tmp_path: Path) -> Post:
    """Register files with an API of these settings; the answer."""
    key_file = tmp_path / "jwt.key"
    key_file.write_text("k" * 64)

    def send(reference: bytes, artefact: bytes, **more: Any) -> Any:
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]  # of pydantic-settings
            data_dir=tmp_path,
            database_url=database_url,
            broker_url="redis://127.0.0.1:1/0",
            jwt_key_file=key_file,
            **more,
        )
        token = create_token(settings, subject="t", tenant="default", scopes=("admin",), ttl=timedelta(minutes=5))
        form = {
            "version": "1.0.0",
            "reference": (io.BytesIO(reference), "sample.csv"),
            "artefact": (io.BytesIO(artefact), "m.onnx"),
        }
        app = create_app(settings)
        try:
            return app.test_client().post(
                "/v1/models/m/versions", data=form, headers={"Authorization": f"Bearer {token}"}
            )
        finally:
            app.extensions["scorehouse"].close()

    return send


@pytest.mark.parametrize(
    ("reference", "artefact", "told"),
    [
        (b"a" * 31, b"m", "the reference 'sample.csv' is too large: there are more than the 30 bytes"),
        (b"a" * 30, b"m" * 21, "the artefact 'm.onnx' is too large: there are more than the 20 bytes"),
    ],
)
def test_files_are_bounded(post: Post, tmp_path: Path, reference: bytes, artefact: bytes, told: str) -> None:
    answer = post(reference, artefact, max_reference_bytes=30, max_artefact_bytes=20)
    assert answer.status_code == 413
    assert told in answer.json["detail"]
    assert "SCOREHOUSE_MAX_" in answer.json["detail"]
    incoming = ArtefactStore(str(tmp_path / "artefacts" / "incoming"))
    assert list(Path(incoming._root).iterdir()) == []


def test_a_store_that_does_not_take_them_is_503(post: Post) -> None:
    with s3_server():
        answer = post(b"a\n1\n", b"m", artefact_url="s3://no-such-bucket/models")
    assert answer.status_code == 503
    assert "SCOREHOUSE_ARTEFACT_URL" in answer.json["detail"]
