"""A table as DynamoDB keeps it, behind the client that the real `Ledger` talks to.

Conditional puts, consistent queries in pages, and reads without `ConsistentRead`, which may see an older table.
An answer may get lost after the write, or before it; a request whose caller has given up may still arrive later.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError
from tests.model.processes import caller, point

PAGE = 2  # items an answer, so that others come between two pages
Key = tuple[str, int]
OnPut = Callable[[str, int, bytes], None]


class Table:
    """Stands in for boto3's client."""

    def __init__(self, on_put: OnPut) -> None:
        """`on_put` hears of each item that was written: partition key, sort key, bytes."""
        self.items: dict[Key, bytes] = {}
        self.staleness = 0  # how many of the newest items an eventually consistent read does not see
        self.outage = False
        self.faults: dict[str, deque[str]] = {}  # by process: refused, lost or late, for its next calls
        self.late: list[tuple[Key, bytes]] = []  # puts still on their way, their callers gone
        self._on_put = on_put

    def put_item(self, *, Item: dict[str, Any], ConditionExpression: str, **_: Any) -> None:  # noqa: N803
        assert ConditionExpression == "attribute_not_exists(pk)"
        key, payload = (Item["pk"]["S"], int(Item["sk"]["N"])), Item["b"]["B"]
        point("put on its way", (key, payload))
        fault = self._fault()
        if fault == "late":
            self.late.append((key, payload))
            raise _no_answer()
        stored = self._write(key, payload)
        point("put answered", (key, stored))
        if fault == "lost":
            raise _no_answer()
        if stored is not None:
            raise _refused("ConditionalCheckFailedException", {"b": {"B": stored}})

    def deliver_late(self) -> bool:
        """The oldest put that everybody had given up arrives, if there is one."""
        if not self.late:
            return False
        self._write(*self.late.pop(0))
        return True

    def get_item(self, *, Key: dict[str, Any], ConsistentRead: bool = False, **_: Any) -> dict[str, Any]:  # noqa: N803
        point("get on its way")
        self._fault()
        key = (Key["pk"]["S"], int(Key["sk"]["N"]))
        found = self._visible(consistent=ConsistentRead).get(key)
        point("get answered")
        return {} if found is None else {"Item": {"b": {"B": found}}}

    def query(
        self,
        *,
        KeyConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: dict[str, Any],  # noqa: N803
        ConsistentRead: bool = False,  # noqa: N803
        ScanIndexForward: bool = True,  # noqa: N803
        Limit: int | None = None,  # noqa: N803
        ExclusiveStartKey: dict[str, Any] | None = None,  # noqa: N803
        **_: Any,
    ) -> dict[str, Any]:
        point("query on its way")
        self._fault()
        pk = ExpressionAttributeValues[":pk"]["S"]
        at = int(ExpressionAttributeValues.get(":at", {"N": 0})["N"])
        condition = _CONDITIONS[KeyConditionExpression]
        found = [
            (key[1], payload)
            for key, payload in self._visible(consistent=ConsistentRead).items()
            if key[0] == pk and condition(key[1], at)
        ]
        found.sort(reverse=not ScanIndexForward)
        if ExclusiveStartKey is not None:
            after = int(ExclusiveStartKey["sk"]["N"])
            found = [each for each in found if (each[0] > after) == ScanIndexForward and each[0] != after]
        page = found[: min(Limit or PAGE, PAGE)]
        point("query answered", (pk, Limit, page))
        answer: dict[str, Any] = {
            "Items": [{"sk": {"N": str(sort)}, "b": {"B": payload}} for sort, payload in page]
        }
        if len(page) < len(found):
            answer["LastEvaluatedKey"] = {"pk": {"S": pk}, "sk": {"N": str(page[-1][0])}}
        return answer

    def _write(self, key: Key, payload: bytes) -> bytes | None:
        """The item that stood there before, None if this one was written."""
        stored = self.items.get(key)
        if stored is None:
            self.items[key] = payload
            self._on_put(*key, payload)
        return stored

    def _visible(self, *, consistent: bool) -> dict[Key, bytes]:
        if consistent or not self.staleness:
            return self.items
        return dict(list(self.items.items())[: -self.staleness])

    def _fault(self) -> str | None:
        """Raises if this call never arrives."""
        if self.outage:
            raise _refused("ServiceUnavailable")
        waiting = self.faults.get(caller() or "")
        fault = waiting.popleft() if waiting else None
        if fault == "refused":
            raise _refused("ProvisionedThroughputExceededException")
        return fault


_CONDITIONS: dict[str, Callable[[int, int], bool]] = {
    "pk = :pk": lambda _sort, _at: True,
    "pk = :pk AND sk <= :at": lambda sort, at: sort <= at,
    "pk = :pk AND sk >= :at": lambda sort, at: sort >= at,
}


def _refused(code: str, item: dict[str, Any] | None = None) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": code}}
    if item is not None:
        response["Item"] = item
    return ClientError(response, "call")


def _no_answer() -> ReadTimeoutError:
    return ReadTimeoutError(endpoint_url="the ledger")
