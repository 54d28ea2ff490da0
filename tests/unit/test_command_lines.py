"""What each process is started with."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import command_lines
from settings import Settings


def test_a_worker_serves_its_lanes_the_ticks_and_audits_only_beside_bulk() -> None:
    assert command_lines.queues(["interactive"]) == ["interactive", "ticks"]
    assert command_lines.queues(["bulk"]) == ["bulk", "ticks", "audits"]
    assert command_lines.queues(["interactive", "bulk"]) == ["interactive", "bulk", "ticks", "audits"]
    argv = command_lines.worker(["bulk"], 3, "worker-bulk")
    assert argv[argv.index("-Q") + 1] == "bulk,ticks,audits"
    assert argv[argv.index("--concurrency") + 1] == "3"
    assert command_lines.worker_environment(["interactive", "bulk"])["SCOREHOUSE_LANES"] == "interactive,bulk"


def test_children_see_every_setting_that_was_set_but_not_the_clients_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCOREHOUSE_TOKEN", raising=False)
    (tmp_path / ".env").write_text(
        "SCOREHOUSE_CHUNK_BYTES=12345\nSCOREHOUSE_TOKEN=secret\nSCOREHOUSE_LOG_FORMAT=console\n"
    )
    settings = Settings().model_copy(update={"api_port": 8123, "data_dir": tmp_path / "data"})
    environment = command_lines.settings_environment(settings)
    (tmp_path / ".env").unlink()
    for name in environment:
        if name.startswith("SCOREHOUSE_"):
            monkeypatch.setenv(name, environment[name])
    theirs = Settings()
    assert (theirs.chunk_bytes, theirs.api_port, theirs.log_format) == (12345, 8123, "console")
    assert theirs.data_dir == tmp_path / "data"
    assert theirs.token is None
    assert "secret" not in environment.values()


def test_flowers_password_is_on_no_command_line() -> None:
    assert command_lines.flower_environment("hush") == {"FLOWER_BASIC_AUTH": "admin:hush"}
    assert not any("auth" in argument for argument in command_lines.flower("127.0.0.1", 5555))
