from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_api import Answer, ScriptedApi
from scripted_smtp import ScriptedSmtp, certificate
from structlog.testing import capture_logs

import logs
from monitoring import notifications
from monitoring.notifications import ATTEMPTS, Delivery, notify
from settings import Settings

TRANSITION = {
    "model": "flights",
    "model_version": "1.2.0",
    "column": "distance",
    "check": "ks",
    "previous": "pending",
    "state": "firing",
    "severity": "critical",
    "value": 0.25,
    "at": "2025-03-01T00:00:00Z",
}
SECRET = "canary-5e1f"
HOOK = f"/hooks/{SECRET}"


@pytest.fixture(autouse=True)
def a_logger_that_can_be_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was used already keeps the configuration of that moment."""
    monkeypatch.setattr(notifications, "_log", logs.get("monitoring.notifications"))


@pytest.fixture
def receiver() -> Iterator[ScriptedApi]:
    with ScriptedApi().running() as running:
        running.on("POST", HOOK, Answer(200, {}))
        yield running


def configured(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def posting(receiver: ScriptedApi, **values: Any) -> Settings:
    return configured(alert_webhook_url=receiver.url + HOOK, **values)


def mailing(smtp: ScriptedSmtp, **values: Any) -> Settings:
    sender = {"alert_email_from": "Scorehouse <from@example.org>", "alert_email_to": "a@example.org, b@example.org"}
    return configured(**({"smtp_host": "127.0.0.1", "smtp_port": smtp.port, "smtp_starttls": False} | sender | values))


def delivered(settings: Settings, channel: str, transition: dict[str, Any] = TRANSITION) -> Delivery:
    """The delivery of one channel, after a look that no secret is in any, nor in the logs."""
    with capture_logs() as lines:
        deliveries = notify(settings, transition, backoff=0.0)
    assert SECRET not in repr(deliveries) + repr(lines)
    failures = [(line["channel"], line["detail"]) for line in lines if line["event"] == "alert_not_delivered"]
    assert failures == [(delivery.channel, delivery.detail) for delivery in deliveries if not delivery.ok]
    (found,) = [delivery for delivery in deliveries if delivery.channel == channel]
    return found


def test_it_is_always_written_to_the_log_and_sent_nowhere_unless_told_to() -> None:
    with capture_logs() as lines:
        assert notify(configured(), TRANSITION) == [Delivery("log", True, "written")]
        notify(configured(), {**TRANSITION, "state": "resolved"})
    assert [(line["event"], line["log_level"], line["transition"]["state"]) for line in lines] == [
        ("alert", "warning", "firing"),
        ("alert", "info", "resolved"),
    ]


def test_a_webhook_gets_the_transition_signed(receiver: ScriptedApi) -> None:
    delivery = delivered(posting(receiver, alert_webhook_secret=SECRET), "webhook")
    assert delivery == Delivery("webhook", True, "HTTP 200 from 127.0.0.1, attempt 1 of 3")
    (received,) = receiver.received
    assert received.json() == TRANSITION
    assert received.headers["Content-Type"] == "application/json"
    signature = hmac.new(SECRET.encode(), received.body, hashlib.sha256).hexdigest()
    assert received.headers["Scorehouse-Signature"] == f"sha256={signature}"


def test_without_a_secret_there_is_no_signature(receiver: ScriptedApi) -> None:
    assert delivered(posting(receiver), "webhook").ok
    assert "Scorehouse-Signature" not in receiver.received[0].headers


@pytest.mark.parametrize("first", [Answer(503), Answer(429), Answer(500, closing="reset"), Answer(closing="silent")])
def test_a_receiver_that_fails_for_a_moment_is_tried_again(receiver: ScriptedApi, first: Answer) -> None:
    receiver.on("POST", HOOK, first, Answer(204, b""))
    assert delivered(posting(receiver), "webhook") == Delivery(
        "webhook", True, "HTTP 204 from 127.0.0.1, attempt 2 of 3"
    )
    assert [received.json() for received in receiver.received] == [TRANSITION] * 2


def test_attempts_are_bounded(receiver: ScriptedApi) -> None:
    receiver.on("POST", HOOK, Answer(503))
    assert delivered(posting(receiver), "webhook") == Delivery(
        "webhook", False, "HTTP 503 from 127.0.0.1, attempt 3 of 3"
    )
    assert len(receiver.received) == ATTEMPTS == 3


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_refusal_is_not_tried_again(receiver: ScriptedApi, status: int) -> None:
    receiver.on("POST", HOOK, Answer(status))
    assert delivered(posting(receiver), "webhook").detail == f"HTTP {status} from 127.0.0.1, attempt 1 of 3"
    assert len(receiver.received) == 1


def test_a_redirect_is_not_followed(receiver: ScriptedApi) -> None:
    """It would hand the alert and its signature to whom the operator did not name."""
    receiver.on("POST", HOOK, Answer(307, headers={"Location": f"{receiver.url}/elsewhere"}))
    assert not delivered(posting(receiver), "webhook").ok
    assert receiver.paths("POST") == [HOOK]


def test_a_receiver_that_is_away_is_told_of_by_its_host() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://user:{SECRET}@127.0.0.1:{unheard.getsockname()[1]}{HOOK}"
        delivery = delivered(configured(alert_webhook_url=url), "webhook")
    assert delivery.detail == "NewConnectionError: Connection refused from 127.0.0.1, attempt 3 of 3"


@pytest.mark.parametrize(
    "url", [f"ftp://127.0.0.1/{SECRET}", SECRET, f"http://[{SECRET}", f"http://127.0.0.1:x/{SECRET}"]
)
def test_an_address_that_is_none_is_a_failed_delivery(url: str) -> None:
    delivery = delivered(configured(alert_webhook_url=url), "webhook")
    assert not delivery.ok
    assert delivery.detail


def test_what_is_no_json_is_a_failed_delivery_and_nothing_is_posted(receiver: ScriptedApi) -> None:
    assert not delivered(posting(receiver), "webhook", {**TRANSITION, "value": float("nan")}).ok
    assert receiver.received == []


def test_a_mail_reaches_each_address() -> None:
    with ScriptedSmtp().running() as smtp:
        assert delivered(mailing(smtp), "email") == Delivery("email", True, "taken by 127.0.0.1")
    (mail,) = smtp.mails
    assert (mail.sender, mail.recipients) == ("from@example.org", ["a@example.org", "b@example.org"])
    assert mail.content["Subject"] == "[scorehouse] firing (critical): flights 1.2.0, distance, ks"
    assert json.loads(mail.content.get_content()) == TRANSITION


def test_a_hostile_column_adds_no_header_and_no_line() -> None:
    hostile = {**TRANSITION, "column": "x\r\nBcc: c@example.org\r\n\r\n.\r\n<script>" + "é" * 500}
    with ScriptedSmtp().running() as smtp:
        assert delivered(mailing(smtp), "email", hostile).ok
    (mail,) = smtp.mails
    assert mail.recipients == ["a@example.org", "b@example.org"]
    assert mail.content["Bcc"] is None
    assert mail.content["Subject"].startswith("[scorehouse] firing (critical): flights 1.2.0, x  Bcc: c@example.org")
    assert len(mail.content["Subject"]) == 200
    assert json.loads(mail.content.get_content()) == hostile


def test_user_and_password_travel_only_under_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = certificate(tmp_path / "smtp.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    with ScriptedSmtp(certificate=pem, login=("scorehouse", SECRET)).running() as smtp:
        settings = mailing(smtp, smtp_starttls=True, smtp_user="scorehouse", smtp_password=SECRET)
        assert delivered(settings, "email").ok
    assert [encrypted for command, encrypted in smtp.commands if command == "AUTH"] == [True]
    assert len(smtp.mails) == 1


def test_a_server_without_tls_or_with_a_certificate_of_nobody_is_sent_nothing(tmp_path: Path) -> None:
    login = ("scorehouse", SECRET)
    for pem, reason in [
        (None, "SMTPNotSupportedError"),
        (certificate(tmp_path / "smtp.pem"), "SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]"),
    ]:
        with ScriptedSmtp(certificate=pem, login=login).running() as smtp:
            settings = mailing(smtp, smtp_starttls=True, smtp_user="scorehouse", smtp_password=SECRET)
            delivery = delivered(settings, "email")
        assert not delivery.ok
        assert delivery.detail.startswith(reason)
        assert {command for command, _ in smtp.commands} <= {"EHLO", "HELO", "STARTTLS", "QUIT"}


def test_a_refused_login_is_told_of_without_what_the_server_said() -> None:
    with ScriptedSmtp(login=("scorehouse", "other")).running() as smtp:
        delivery = delivered(mailing(smtp, smtp_user="scorehouse", smtp_password=SECRET), "email")
    assert delivery == Delivery("email", False, "SMTPAuthenticationError 535")


def test_refused_addresses_are_told_of() -> None:
    with ScriptedSmtp(refused=("b@example.org",)).running() as smtp:
        delivery = delivered(mailing(smtp), "email")
    assert (delivery.ok, smtp.mails[0].recipients) == (False, ["a@example.org"])
    assert "refused 1 of the addresses" in delivery.detail
    with ScriptedSmtp(refused=("a@example.org", "b@example.org")).running() as smtp:
        assert delivered(mailing(smtp), "email") == Delivery("email", False, "SMTPRecipientsRefused")


@pytest.mark.parametrize("missing", ["alert_email_from", "alert_email_to"])
def test_half_of_the_settings_is_a_failed_delivery_that_says_so(missing: str) -> None:
    with ScriptedSmtp().running() as smtp:
        delivery = delivered(mailing(smtp, **{missing: None}), "email")
    assert not delivery.ok
    assert f"SCOREHOUSE_{missing.upper()}" in delivery.detail
    assert smtp.commands == []


def test_one_channel_that_fails_does_not_keep_the_others_from_being_told(receiver: ScriptedApi) -> None:
    receiver.on("POST", HOOK, Answer(410))
    with ScriptedSmtp(greeting="421 too busy").running() as smtp:
        deliveries = notify(mailing(smtp, alert_webhook_url=receiver.url + HOOK), TRANSITION, backoff=0.0)
    assert [(one.channel, one.ok) for one in deliveries] == [("log", True), ("webhook", False), ("email", False)]
    assert deliveries[-1].detail == "SMTPConnectError 421"
    assert len(receiver.received) == 1
