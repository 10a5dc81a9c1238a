"""A bucket on a server of S3's protocol, with the variables that lead to it."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

SECRET = "the-secret-access-key"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a name of its own, since all servers in a process share what they hold."""

    name: str
    variables: dict[str, str]
    client: Any

    def read_all(self) -> dict[str, bytes]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            listed = self.client.list_objects_v2(Bucket=self.name).get("Contents", [])
            return {
                entry["Key"]: self.client.get_object(Bucket=self.name, Key=entry["Key"])["Body"].read()
                for entry in listed
            }


@contextmanager
def open_bucket() -> Iterator[Bucket]:
    """A bucket on loopback; its server is stopped at the end."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="the-key",
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}),
        )
        name = f"bucket{secrets.token_hex(6)}"
        client.create_bucket(Bucket=name)
    variables = {
        "AWS_ENDPOINT": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "the-key",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }
    try:
        yield Bucket(name, variables, client)
    finally:
        client.close()
        server.stop()
