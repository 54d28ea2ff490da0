"""`scorehouse quota` for a tenant, and how its client tells of a quota that is used up."""

from __future__ import annotations

import pytest
from command_line import CommandLine
from scripted_api import Answer, ScriptedApi

from scorehouse_client import Client, ScorehouseApiError

QUOTA = {
    "tenant": "acme",
    "rows_per_day": {"limit": 1_000_000, "used": 250_000, "remaining": 750_000, "resets_at": "2026-01-02T00:00:00Z"},
    "bytes_stored": {"limit": None, "used": 12, "remaining": None},
    "jobs_open": {"limit": 7, "used": 7, "remaining": 0},
    "uploads_at_once": {"limit": 4, "used": 0, "remaining": 4},
    "requests_per_second": {"limit": 50, "burst": 100, "remaining": 99},
}
OVER = {
    "title": "Too Many Requests",
    "status": 429,
    "detail": "over the quota of 10 rows a day: 10 used, 1 more asked for; the count begins anew at midnight UTC",
    "quota": "rows_per_day",
    "limit": 10,
    "used": 10,
}


def test_a_tenant_sees_its_quota(scorehouse: CommandLine, api: ScriptedApi) -> None:
    api.on("GET", "/v1/quota", Answer(200, QUOTA), Answer(200, QUOTA))
    shown = scorehouse("quota")
    assert shown.code == 0
    text = shown.out.decode()
    for expected in ("tenant acme", "1,000,000", "750,000", "2026-01-02", "unlimited", "up to 100 at once"):
        assert expected in text
    assert scorehouse("quota", "--json").json == QUOTA


@pytest.mark.parametrize("value", ["-1", "many", "1.5", "9223372036854775808"])
def test_a_limit_that_is_none_is_refused(scorehouse: CommandLine, value: str) -> None:
    told = scorehouse("quota", "set", "acme", f"--jobs-open={value}")
    assert (told.code, told.out) == (1, b"")
    assert b"give a number from 0, `unlimited`, or `default`" in told.err


def test_a_set_of_nothing_is_wrong_usage(scorehouse: CommandLine) -> None:
    assert scorehouse("quota", "set", "acme").code == 2


def test_a_quota_that_is_used_up_is_told_at_once(api: ScriptedApi, client: Client) -> None:
    api.on("POST", "/v1/jobs", Answer(429, OVER, {"Retry-After": "54321"}))
    with pytest.raises(ScorehouseApiError, match="Try again in 15 h 6 min") as caught:
        client.submit("flights", {"a": 1})
    assert (caught.value.quota, caught.value.limit, caught.value.used) == ("rows_per_day", 10, 10)
    assert len(api.received) == 1


def test_a_rate_limit_is_waited_out(api: ScriptedApi, client: Client) -> None:
    api.on("GET", "/v1/quota", Answer(429, OVER, {"Retry-After": "0"}), Answer(200, QUOTA))
    assert client.quota() == QUOTA
