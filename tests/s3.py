"""A real S3 server on loopback: versitygw over a folder, with one key that may do all."""

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from tests.apiserver.binaries import binary

from psephos_lab.ports import LOOPBACK, free_port
from psephos_lab.servers import Server

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "eu-test-1"
KEY_ID, SECRET = "psephos-test", "psephos-test-secret"


class S3(Server):
    """Buckets are folders in `folder`."""

    def __init__(self, folder: Path, logs: Path) -> None:
        super().__init__("S3", free_port(), folder, logs / "s3.log")

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    @property
    def environ(self) -> dict[str, str]:
        """Settings by which a role reaches it."""
        return {
            "PSEPHOS_S3_ENDPOINT": self.endpoint,
            "PSEPHOS_S3_REGION": REGION,
            "PSEPHOS_S3_ACCESS_KEY_ID": KEY_ID,
            "PSEPHOS_S3_SECRET_ACCESS_KEY": SECRET,
        }

    @property
    def client(self) -> "S3Client":
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}),
        )

    def command(self) -> list[str]:
        return [
            *(str(binary("versitygw")), "--port", self.address, "--region", REGION, "--quiet"),
            *("--access", KEY_ID, "--secret", SECRET, "posix", "--sidecar", str(self._beside()), str(self.folder)),
        ]

    def ready(self) -> bool:
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: s3\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 403")  # nobody signed that
        return False

    def bucket(self, name: str) -> str:
        """Makes a bucket."""
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=content)

    def get(self, bucket: str, key: str) -> bytes:
        return self.client.get_object(Bucket=bucket, Key=key)["Body"].read()

    def keys(self, bucket: str) -> list[str]:
        return [found["Key"] for found in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]

    def _beside(self) -> Path:
        """Metadata goes into files: not every file system of a container has extended attributes."""
        folder = self.folder.with_name("metadata")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
