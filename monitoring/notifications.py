"""Telling people that an alert fires or has resolved: always in the log, and by webhook and e-mail where they are set.

A channel that fails must not cost the audit that found something, so nothing here raises: each attempt is a Delivery,
to be stored beside the transition. Names of errors and status codes stand in it, never what a server or a library said
in full: such texts quote URLs and credentials.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import socket
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any, Literal

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

import logs
from settings import Settings

Channel = Literal["log", "webhook", "email"]

SIGNATURE_HEADER = "Scorehouse-Signature"
#: Seconds for connecting, and for each wait for an answer.
TIMEOUT = 5.0
ATTEMPTS = 3
#: Seconds before the second attempt of a post; twice as long before each further one.
BACKOFF = 0.5
_SUBJECT_CHARS = 200

_log = logs.get(__name__)


@dataclass(frozen=True)
class Delivery:
    """One channel's outcome; `detail` names the host and the reason, and no secret."""

    channel: Channel
    ok: bool
    detail: str


class _Failed(Exception):
    """A channel gave up; its text is safe to store."""


def notify(
    settings: Settings,
    transition_document: Mapping[str, Any],
    *,
    only: Collection[Channel] | None = None,
    backoff: float = BACKOFF,
) -> list[Delivery]:
    """Tell of a transition on every channel that is set, or on `only` those, and say how each went.

    Args:
        transition_document: JSON with `state` and whatever else is known of `severity, model, model_version, column,
            check, value, warn, critical, window_start, reason`; it is posted and mailed whole.
        backoff: seconds before the second attempt of a post.
    """
    channels: dict[Channel, Callable[[], str]] = {"log": lambda: _write(transition_document)}
    if settings.alert_webhook_url:
        channels["webhook"] = lambda: _post(settings, transition_document, backoff)
    if settings.smtp_host:
        channels["email"] = lambda: _mail(settings, transition_document)
    deliveries = [_delivered(name, tell) for name, tell in channels.items() if only is None or name in only]
    for delivery in deliveries:
        if not delivery.ok:
            _log.error("alert_not_delivered", channel=delivery.channel, detail=delivery.detail)
    return deliveries


def sign(body: bytes, secret: str) -> str:
    """The value of `Scorehouse-Signature`: `sha256=` and the HMAC-SHA256 (RFC 2104) of the body in hexadecimal."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"


def _delivered(channel: Channel, deliver: Callable[[], str]) -> Delivery:
    try:
        return Delivery(channel, True, deliver())
    except _Failed as exc:
        return Delivery(channel, False, str(exc))
    except Exception as exc:  # whatever is wrong with a channel, the audit goes on
        return Delivery(channel, False, _reason(exc))


def _write(document: Mapping[str, Any]) -> str:
    write = _log.warning if document.get("state") == "firing" else _log.info
    write("alert", transition=dict(document))
    return "written"


def _post(settings: Settings, document: Mapping[str, Any], backoff: float) -> str:
    assert settings.alert_webhook_url is not None
    url = settings.alert_webhook_url.get_secret_value()
    host = parse_url(url).host
    body = json.dumps(document, allow_nan=False, default=str).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "scorehouse"}
    if settings.alert_webhook_secret:
        headers[SIGNATURE_HEADER] = sign(body, settings.alert_webhook_secret.get_secret_value())
    with urllib3.PoolManager(timeout=urllib3.Timeout(TIMEOUT), retries=False) as pool:
        for attempt in range(1, ATTEMPTS + 1):
            status, outcome = _post_once(pool, url, body, headers)
            told = f"{outcome} from {host}, attempt {attempt} of {ATTEMPTS}"
            if status is not None and 200 <= status < 300:
                return told
            # Any other answer than these says the same the next time.
            if attempt == ATTEMPTS or (status is not None and status < 500 and status != 429):
                break
            time.sleep(backoff * 2 ** (attempt - 1))
    raise _Failed(told)


def _post_once(pool: urllib3.PoolManager, url: str, body: bytes, headers: dict[str, str]) -> tuple[int | None, str]:
    """The status, or None where there was no answer, and what to tell of it."""
    try:
        # The answer's content is not read: it is of no use here, and may have no end.
        answer = pool.request("POST", url, body=body, headers=headers, preload_content=False)
    except (HTTPError, OSError) as exc:
        return None, _reason(exc)
    answer.close()
    return answer.status, f"HTTP {answer.status}"


def _mail(settings: Settings, document: Mapping[str, Any]) -> str:
    if not settings.alert_email_from or not settings.alert_email_to:
        raise _Failed("set SCOREHOUSE_ALERT_EMAIL_FROM and SCOREHOUSE_ALERT_EMAIL_TO, or unset SCOREHOUSE_SMTP_HOST")
    assert settings.smtp_host is not None
    message = _message(settings.alert_email_from, settings.alert_email_to, document)
    # Without a name of our own smtplib looks one up, which takes long where there is no name server.
    with smtplib.SMTP(settings.smtp_host, settings.smtp_port, socket.gethostname(), timeout=TIMEOUT) as server:
        if settings.smtp_starttls:
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user:
            password = settings.smtp_password.get_secret_value() if settings.smtp_password else ""
            server.login(settings.smtp_user, password)
        refused = server.send_message(message)
    if refused:
        raise _Failed(f"{settings.smtp_host} refused {len(refused)} of the addresses, and took the mail for the others")
    return f"taken by {settings.smtp_host}"


def _message(sender: str, recipients: str, document: Mapping[str, Any]) -> EmailMessage:
    message = EmailMessage()
    message["From"] = sender
    message["To"] = recipients
    message["Subject"] = _subject(document)
    # ASCII JSON: whatever a column is called, it can neither end a line nor look like another one.
    message.set_content(json.dumps(document, indent=2, default=str) + "\n")
    return message


def _subject(document: Mapping[str, Any]) -> str:
    """One line, such as `[scorehouse] firing (critical): flights 1.2.0, distance, ks`."""
    state, severity = document.get("state", "alert"), document.get("severity")
    version = " ".join(str(document[name]) for name in ("model", "model_version") if document.get(name))
    parts = [version, *(str(document[name]) for name in ("column", "check") if document.get(name))]
    text = f"[scorehouse] {state}{f' ({severity})' if severity else ''}: {', '.join(part for part in parts if part)}"
    # A column's name is the caller's text: a line break in it would be a header of its own.
    line = "".join(char if char.isprintable() else " " for char in text)
    return line if len(line) <= _SUBJECT_CHARS else f"{line[: _SUBJECT_CHARS - 1]}…"


def _reason(exc: BaseException) -> str:
    """The error's name, with the operating system's or the mail server's code for it."""
    name = type(exc).__name__
    if isinstance(exc, smtplib.SMTPResponseException):
        return f"{name} {exc.smtp_code}"
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            return f"{name}: {cause.strerror}"
        cause = cause.__cause__ or cause.__context__
    return name
