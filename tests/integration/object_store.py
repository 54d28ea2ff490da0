"""An S3 server, on the loopback unless another address is given, with one empty bucket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from moto.server import ThreadedMotoServer

BUCKET = "models"


def start_s3(port: int = 0, address: str = "127.0.0.1") -> ThreadedMotoServer:
    """A server; what is stored belongs to this process, so one that is started again still has it."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address=address, port=port, verbose=False)
    server.start()
    return server


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[ThreadedMotoServer]:
    """The environment names it as deployments do."""
    server = start_s3(address=address)
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            environment.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket=BUCKET)
        try:
            yield server
        finally:
            server.stop()
