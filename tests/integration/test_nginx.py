"""The nginx of docker-compose.yml, with its own configuration files, in front of the API's gunicorn; with TLS and without."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from debian_programs import find
from serving import Answer, Server, parsed, read_all, serving

from cli.background import free_port

FILES = Path(__file__).parents[2] / "deployment" / "nginx"
GET = b"GET /a HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Proxy:
    plain: Server
    tls_port: int


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("nginx")
    nginx = find("nginx", "nginx-light")
    port, tls_port = free_port(0), free_port(0)
    with serving(tmp_path_factory.mktemp("api"), STALL_SECONDS=30) as server:
        _configure(folder, {"listen 8000;": f"listen 127.0.0.1:{port};", "listen 8443 ssl;": f"listen 127.0.0.1:{tls_port} ssl;",
                            "http://api:8000": f"http://127.0.0.1:{server.port}"})  # fmt: skip
        command = [nginx, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr
        process = subprocess.Popen(
            [*command, "-g", "daemon off;"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(port)
            yield Proxy(Server(port, process.pid), tls_port)
        finally:
            process.terminate()
            process.wait(20)


def _configure(folder: Path, changes: dict[str, str]) -> None:
    """The files as compose mounts them, with paths and ports of this test, and a second of patience for heads."""
    changes |= {
        "pid /run/nginx.pid;": f"pid {folder}/pid;" + (" user root;" if os.geteuid() == 0 else ""),
        "worker_processes auto;": "worker_processes 1;",
        "_path /tmp/": f"_path {folder}/",
        "client_header_timeout 15s;": "client_header_timeout 1s;",
    }
    (folder / "servers").mkdir()
    (folder / "tls").mkdir()
    used = set()
    for name, place in (("compose.conf", "nginx.conf"), ("api.conf", "api.conf"), ("tls.conf", "servers/tls.conf")):
        text = (FILES / name).read_text()
        for old, new in changes.items():
            used |= {old} if old in text else set()
            text = text.replace(old, new)
        (folder / place).write_text(text)
    assert used == set(changes)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", folder / "tls" / "privkey.pem", "-out", folder / "tls" / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        else:
            return


def over_tls(proxy: Proxy, sent: bytes, version: ssl.TLSVersion) -> Answer:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", proxy.tls_port), timeout=20) as plain,
        context.wrap_socket(plain) as client,
    ):
        client.sendall(sent)
        (answer,) = parsed(read_all(client))
    return answer


def test_requests_pass_with_bodies_of_any_length(proxy: Proxy) -> None:
    (answer,) = proxy.plain.answers(GET, close=False)
    assert (answer.status, answer.headers["content-length"]) == (200, str(len(answer.body)))
    head = b"POST /a HTTP/1.1\r\nHost: s\r\nContent-Length: 3000000\r\nConnection: close\r\n\r\n"
    (answer,) = proxy.plain.answers(head + b"x" * 3_000_000, close=False)
    assert b'"body": 3000000' in answer.body


def test_metrics_are_not_for_the_world(proxy: Proxy) -> None:
    (answer,) = proxy.plain.answers(GET.replace(b"/a", b"/metrics"), close=False)
    assert answer.status == 404


def test_a_slow_head_is_let_go(proxy: Proxy) -> None:
    assert proxy.plain.answers(b"GET /a HTTP/1.1\r\nHost", close=False) == []


def test_a_head_is_bounded(proxy: Proxy) -> None:
    long = GET.replace(b"/a", b"/" + b"a" * 9_000)
    (answer,) = proxy.plain.answers(long, close=False)
    assert answer.status == 414


def test_ambiguous_requests_go_no_further(proxy: Proxy) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: s\r\n\r\n"
    both = b"POST /a HTTP/1.1\r\nHost: s\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    (answer,) = proxy.plain.answers(both + hidden, close=False)
    assert answer.status == 400


def test_it_does_not_tell_its_version(proxy: Proxy) -> None:
    (answer,) = proxy.plain.answers(GET.replace(b"/a", b"/metrics"), close=False)
    assert answer.headers["server"] == "nginx"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_tells_browsers_to_stay_with_it(proxy: Proxy, version: ssl.TLSVersion) -> None:
    answer = over_tls(proxy, GET, version)
    assert (answer.status, b'"path": "/a"' in answer.body) == (200, True)
    assert answer.headers["strict-transport-security"].startswith("max-age=")
    assert over_tls(proxy, GET.replace(b"/a", b"/metrics"), version).status == 404


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(proxy: Proxy) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        over_tls(proxy, GET, ssl.TLSVersion.TLSv1_1)


def test_compose_mounts_what_the_configuration_names() -> None:
    root = FILES.parents[1]
    services = [
        yaml.safe_load(path.read_text())["services"]
        for path in (root / "docker-compose.yml", FILES / "compose.tls.yml")
    ]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for each in services for volume in each["nginx"]["volumes"]}
    assert mounted == {
        "/etc/nginx/nginx.conf": "./deployment/nginx/compose.conf",
        "/etc/nginx/api.conf": "./deployment/nginx/api.conf",
        "/etc/nginx/servers/tls.conf": "./deployment/nginx/tls.conf",
        "/etc/nginx/tls": "./secrets/tls",
    }
