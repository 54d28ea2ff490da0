"""A real mail server in a thread that keeps what it was sent and refuses what a test tells it to."""

from __future__ import annotations

import base64
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass
class Mail:
    sender: str
    recipients: list[str]
    content: EmailMessage


class ScriptedSmtp:
    """With a `certificate` (a PEM file that also holds the key) it offers STARTTLS; with `login`, AUTH PLAIN."""

    def __init__(
        self,
        *,
        certificate: Path | None = None,
        login: tuple[str, str] | None = None,
        refused: tuple[str, ...] = (),
        greeting: str = "220 ready",
    ) -> None:
        self.mails: list[Mail] = []
        self.commands: list[tuple[str, bool]] = []  # each, and whether it came encrypted
        self.login, self.refused, self.greeting = login, refused, greeting
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self.tls and certificate:
            self.tls.load_cert_chain(certificate)

        class Handler(_Handler):
            smtp = self

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @contextmanager
    def running(self) -> Iterator[ScriptedSmtp]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()


class _Server(ThreadingTCPServer):
    daemon_threads = True


class _Handler(StreamRequestHandler):
    smtp: ScriptedSmtp

    def handle(self) -> None:
        self.encrypted, self.sender, self.recipients = False, "", list[str]()
        self._say(self.smtp.greeting)
        try:
            while (line := self.rfile.readline()) and self._take(line.decode().strip()):
                pass
        except (ssl.SSLError, ConnectionError):
            return  # the client did not trust us, and left

    def finish(self) -> None:
        super().finish()
        self.connection.close()  # under TLS another socket than the one that the server itself closes

    def _take(self, line: str) -> bool:
        command, _, rest = line.partition(" ")
        command = command.upper()
        self.smtp.commands.append((command, self.encrypted))
        match command:
            case "EHLO":
                extensions = ["STARTTLS"] if self.smtp.tls and not self.encrypted else []
                extensions += ["AUTH PLAIN"] if self.smtp.login else []
                for extension in ["hello", *extensions]:
                    self._say(f"250-{extension}")
                self._say("250 SIZE 1000000")
            case "STARTTLS" if self.smtp.tls:
                self._say("220 go ahead")
                self.connection = self.smtp.tls.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)
                self.encrypted = True
            case "AUTH":
                given = tuple(base64.b64decode(rest.split()[-1]).decode().split("\0")[1:])
                self._say("235 welcome" if given == self.smtp.login else f"535 not {rest}")
            case "MAIL":
                self.sender = rest.partition("<")[2].partition(">")[0]
                self._say("250 ok")
            case "RCPT":
                address = rest.partition("<")[2].partition(">")[0]
                self.recipients += [] if address in self.smtp.refused else [address]
                self._say("550 unknown" if address in self.smtp.refused else "250 ok")
            case "DATA":
                self._say("354 go on")
                self._keep()
                self._say("250 kept")
            case "QUIT":
                self._say("221 bye")
                return False
            case _:
                self._say("250 ok")
        return True

    def _keep(self) -> None:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        content = message_from_bytes(b"".join(lines), policy=policy.default)
        assert isinstance(content, EmailMessage)
        self.smtp.mails.append(Mail(self.sender, self.recipients, content))

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


def certificate(path: Path) -> Path:
    """A file with a key and a certificate for 127.0.0.1 that it signed itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path
