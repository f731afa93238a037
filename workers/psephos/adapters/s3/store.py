"""Reads and conditional writes of objects. boto3's low-level client, which threads may share."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from psephos.adapters.s3.address import Address
from psephos.platform.errors import PsephosError
from psephos.platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 20
ATTEMPTS = 3
CHUNK = 256 * 1024
_MISSING = ("NoSuchKey", "404", "NotFound")
_CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict", "409")
_MEANINGS = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "access is denied",
    "403": "access is denied",
    "InvalidAccessKeyId": "the access key is not known there",
    "XAdminUserNotFound": "the access key is not known there",  # versitygw's name for it
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "NotImplemented": "it has no conditional writes (If-None-Match, If-Match)",
    "PermanentRedirect": "the bucket is in another region",
    "301": "the bucket is in another region",
}


class ObjectStoreError(PsephosError):
    """The store did not do what it was asked to. The message is one line: where, and why."""


class ObjectMissing(ObjectStoreError):
    """There is no such object."""


class _Changed(PsephosError):
    """The object is not the expected one, or there is one where none was."""


class ObjectVersion(NamedTuple):
    """Identifies an object's present content: its ETag, and its size in bytes."""

    etag: str
    size: int


def s3_client(settings: Settings) -> "S3Client":
    """A client for these settings: with their key, else with the environment's credentials: variables, a role."""
    own: dict[str, Any] = {}
    if settings.s3_access_key_id is not None:
        own["aws_access_key_id"] = settings.s3_access_key_id
        own["aws_secret_access_key"] = settings.s3_secret_access_key
    elsewhere: dict[str, Any] = {}
    if settings.s3_endpoint is not None:  # not every other server knows bucket host names and trailing checksums
        elsewhere = {
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region or settings.aws_region,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            **elsewhere,
        ),
        **own,
    )


class ObjectStore:
    """An object store. Methods raise ObjectStoreError. Threads may share it."""

    def __init__(self, client: "S3Client") -> None:
        self._client = client

    @classmethod
    def of(cls, settings: Settings) -> "ObjectStore":
        """The store that these settings name. Makes no request yet."""
        try:
            return cls(s3_client(settings))
        except (BotoCoreError, ValueError) as error:
            raise ObjectStoreError(f"S3: {error}") from None

    def version(self, address: Address) -> ObjectVersion:
        """The version of the object's present content. Raises ObjectMissing."""
        with _translated(address):
            answer = self._client.head_object(Bucket=address.bucket, Key=address.key)
        return ObjectVersion(answer["ETag"], answer["ContentLength"])

    def read(self, address: Address) -> tuple[bytes, str] | None:
        """A small object and its ETag; None if there is none."""
        try:
            with _translated(address):
                answer = self._client.get_object(Bucket=address.bucket, Key=address.key)
                return answer["Body"].read(), answer["ETag"]
        except ObjectMissing:
            return None

    def chunks(self, address: Address, etag: str) -> Iterator[bytes]:
        """Exactly this content, chunk by chunk: it is an error if the object has changed meanwhile."""
        with _translated(address):
            try:
                answer = self._client.get_object(Bucket=address.bucket, Key=address.key, IfMatch=etag)
                yield from answer["Body"].iter_chunks(CHUNK)
            except ClientError as error:
                if _code(error) in _CHANGED:
                    raise ObjectStoreError(f"{address}: it has changed while it was read") from None
                raise

    def put_same(self, address: Address, content: bytes, media_type: str) -> bool:
        """Makes the object hold this content; returns whether it had to be written.

        Every write is conditional, so that of two writers one sees what the other one wrote.
        """
        for _ in range(ATTEMPTS):
            found = self.read(address)
            if found is not None and found[0] == content:
                return False
            condition: dict[str, Any] = {"IfNoneMatch": "*"} if found is None else {"IfMatch": found[1]}
            try:
                with _translated(address):
                    self._put(address, content, media_type, condition)
            except _Changed:
                continue
            return True
        raise ObjectStoreError(f"{address}: somebody else writes it as well")

    def delete_below(self, address: Address) -> int:
        """Deletes all objects under this address; returns how many. A bucket that is gone has none."""
        deleted, pages = 0, self._client.get_paginator("list_objects_v2")
        with _translated(address):
            try:
                for page in pages.paginate(Bucket=address.bucket, Prefix=f"{address.key}/"):
                    for found in page.get("Contents", ()):
                        self._client.delete_object(Bucket=address.bucket, Key=found["Key"])
                        deleted += 1
            except ClientError as error:
                if _code(error) != "NoSuchBucket":
                    raise
        return deleted

    def _put(self, address: Address, content: bytes, media_type: str, condition: dict[str, Any]) -> None:
        try:
            self._client.put_object(
                Bucket=address.bucket, Key=address.key, Body=content, ContentType=media_type, **condition
            )
        except ClientError as error:
            if _code(error) in (*_CHANGED, *_MISSING):
                raise _Changed from None
            raise


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated(address: Address) -> Iterator[None]:
    """Translates the client's errors into ours, in words."""
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if code in _MISSING:
            raise ObjectMissing(f"{address}: there is no such object") from None
        said = error.response.get("Error", {}).get("Message", "")
        raise ObjectStoreError(f"{address}: {_MEANINGS.get(code) or f'{code}: {said}'.strip(': ')}") from None
    except BotoCoreError as error:
        raise ObjectStoreError(f"{address}: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
