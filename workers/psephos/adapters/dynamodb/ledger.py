"""Reads and conditional writes of one session's items. boto3's low-level client, which threads may share."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from psephos.adapters.dynamodb.descriptions import boto_session
from psephos.platform.errors import BAD_INPUT, PsephosError
from psephos.platform.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

CONNECT_TIMEOUT_S = 2
READ_TIMEOUT_S = 5
_BATCH = 25  # the most that one BatchWriteItem takes
POOL = 32  # puts of several partitions run in parallel


class LedgerUnavailable(PsephosError):
    """The ledger did not answer, or throttles. The write may have happened: put again, and the answer shows it."""

    exit_code = BAD_INPUT


class LedgerMissing(PsephosError):
    """The table or a required item does not exist."""

    exit_code = BAD_INPUT


class Conflict(PsephosError):
    """Another item exists under this key. `payload`: its bytes."""

    def __init__(self, payload: bytes) -> None:
        super().__init__("another item stands under this key")
        self.payload = payload


class StoredBlock(NamedTuple):
    """A block as the ledger holds it: its base offset and its bytes."""

    base: int
    payload: bytes


def dynamodb_client(settings: Settings) -> "DynamoDBClient":
    """A client for these settings. Local endpoints accept any credentials."""
    local: dict[str, Any] = (
        {"aws_access_key_id": "local", "aws_secret_access_key": "local"} if settings.dynamodb_endpoint else {}
    )
    return boto_session().client(
        "dynamodb",
        endpoint_url=settings.dynamodb_endpoint,
        region_name=settings.aws_region,
        config=Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=POOL,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
        **local,
    )


class Ledger:
    """One session's items. Methods raise LedgerUnavailable if they can't reach the table."""

    def __init__(self, client: "DynamoDBClient", table: str, session_uid: str) -> None:
        self._client = client
        self._table = table
        self.session_uid = session_uid

    @classmethod
    def of(cls, settings: Settings) -> "Ledger":
        """The ledger that these settings name."""
        return cls(dynamodb_client(settings), settings.dynamodb_table, settings.session_uid)

    def create_table(self) -> None:
        """Creates the table (on demand) if it does not exist, and waits until it is active."""
        try:
            self._client.create_table(
                TableName=self._table,
                AttributeDefinitions=[
                    {"AttributeName": "pk", "AttributeType": "S"},
                    {"AttributeName": "sk", "AttributeType": "N"},
                ],
                KeySchema=[
                    {"AttributeName": "pk", "KeyType": "HASH"},
                    {"AttributeName": "sk", "KeyType": "RANGE"},
                ],
                BillingMode="PAY_PER_REQUEST",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUseException":
                raise _translated(error) from error
        except BotoCoreError as error:
            raise LedgerUnavailable(str(error)) from error
        self._client.get_waiter("table_exists").wait(
            TableName=self._table, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )

    # blocks

    def put_block(self, partition: int, base: int, payload: bytes) -> None:
        """Writes a block if there is none. Raises Conflict with the stored bytes if there is one."""
        self._put(str(partition), base, payload)

    def head(self, partition: int) -> StoredBlock | None:
        """The last block of a partition; None before the first. Consistent."""
        return next(self._query_blocks(partition, "", {}, newest_first=True, limit=1), None)

    def block_at(self, partition: int, offset: int) -> StoredBlock | None:
        """The last block with base <= offset: the one that holds this offset, if any does. Consistent."""
        return next(
            self._query_blocks(
                partition, " AND sk <= :at", {":at": {"N": str(offset)}}, newest_first=True, limit=1
            ),
            None,
        )

    def blocks(self, partition: int, start: int = 0) -> Iterator[StoredBlock]:
        """All blocks with base >= start, in order, page by page. Consistent."""
        return self._query_blocks(partition, " AND sk >= :at", {":at": {"N": str(start)}})

    # everything else

    def put_once(self, kind: str, payload: bytes, sort: int = 0) -> bytes:
        """Writes an item if there is none; returns the bytes stored then: its own or the earlier ones."""
        try:
            self._put(kind, sort, payload)
        except Conflict as conflict:
            return conflict.payload
        return payload

    def get(self, kind: str, sort: int = 0) -> bytes | None:
        """An item's bytes; None if it does not exist. Consistent."""
        try:
            answer = self._client.get_item(TableName=self._table, Key=self._key(kind, sort), ConsistentRead=True)
        except (BotoCoreError, ClientError) as error:
            raise _translated(error) from error
        item = answer.get("Item")
        return None if item is None else bytes(item["b"]["B"])

    def items(self, kind: str) -> Iterator[tuple[int, bytes]]:
        """All items of a kind as (sort key, bytes), in order. Consistent."""
        return ((block.base, block.payload) for block in self._query(kind, "", {}))

    def delete_session(self) -> int:
        """Deletes all items of this session, as deletionPolicy Delete requires; returns how many there were.

        NB: names of audits are recorded nowhere, so this reads the keys of the whole table, page by page.
        """
        ask: dict[str, Any] = {
            "TableName": self._table,
            "ProjectionExpression": "pk, sk",
            "FilterExpression": "begins_with(pk, :uid)",
            "ExpressionAttributeValues": {":uid": {"S": f"{self.session_uid}#"}},
            "ConsistentRead": True,
        }
        deleted = 0
        while True:
            try:
                answer = self._client.scan(**ask)
                deleted += self._delete_items(answer["Items"])
            except (BotoCoreError, ClientError) as error:
                raise _translated(error) from error
            if "LastEvaluatedKey" not in answer:
                return deleted
            ask["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _delete_items(self, keys: list[Any]) -> int:
        for first in range(0, len(keys), _BATCH):
            wanted: Any = {self._table: [{"DeleteRequest": {"Key": key}} for key in keys[first : first + _BATCH]]}
            while wanted:
                wanted = self._client.batch_write_item(RequestItems=wanted).get("UnprocessedItems")
        return len(keys)

    def _query_blocks(
        self, partition: int, condition: str, values: dict[str, Any], **how: Any
    ) -> Iterator[StoredBlock]:
        return self._query(str(partition), condition, values, **how)

    def _query(
        self,
        kind: str,
        condition: str,
        values: dict[str, Any],
        *,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[StoredBlock]:
        ask: dict[str, Any] = {
            "TableName": self._table,
            "KeyConditionExpression": "pk = :pk" + condition,
            "ExpressionAttributeValues": {":pk": {"S": f"{self.session_uid}#{kind}"}, **values},
            "ConsistentRead": True,
            "ScanIndexForward": not newest_first,
        }
        if limit is not None:
            ask["Limit"] = limit
        while True:
            try:
                answer = self._client.query(**ask)
            except (BotoCoreError, ClientError) as error:
                raise _translated(error) from error
            for item in answer["Items"]:
                yield StoredBlock(int(item["sk"]["N"]), bytes(item["b"]["B"]))
            if limit is not None or "LastEvaluatedKey" not in answer:
                return
            ask["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def _put(self, kind: str, sort: int, payload: bytes) -> None:
        try:
            self._client.put_item(
                TableName=self._table,
                Item={**self._key(kind, sort), "b": {"B": payload}},
                ConditionExpression="attribute_not_exists(pk)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise _translated(error) from error
            old: Any = error.response.get("Item")
            if old is None:  # an endpoint that does not return the old item
                stored = self.get(kind, sort)
                raise Conflict(stored or b"") from None
            raise Conflict(_bytes_of(old["b"])) from None
        except BotoCoreError as error:
            raise LedgerUnavailable(str(error)) from error

    def _key(self, kind: str, sort: int) -> dict[str, Any]:
        return {"pk": {"S": f"{self.session_uid}#{kind}"}, "sk": {"N": str(sort)}}


def _bytes_of(attribute: Any) -> bytes:
    """The old item in an error is not decoded by botocore: its binary may still be base64 text."""
    import base64

    value = attribute["B"]
    return base64.b64decode(value) if isinstance(value, str) else bytes(value)


def _translated(error: BotoCoreError | ClientError) -> Exception:
    if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ResourceNotFoundException":
        return LedgerMissing("the ledger's table is not there: the operator (or the local stack) makes it")
    return LedgerUnavailable(str(error))
