"""A process that asks Kafka again and again: `python -m tests.integration.operator.asking KIND BOOTSTRAP UID`.

`product`: each request that a process of Psephos makes, as it makes it. `mutant`: who owns the partitions, as the
operator once asked, in its own process. Four times a second it writes how often each request has been answered.
"""

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from psephos.adapters.kafka import LogAdmin, LogUnavailable, client_config, tally_group
from psephos.platform.settings import Settings
from psephos_operator.reconcile.backends import Backends
from psephos_operator.settings import OperatorSettings, load_operator_settings

PARTITIONS = 3
_PAUSE_S = 0.05  # between two requests of a kind
_OLD_TIMEOUT_S = 10.0


def operator_settings(bootstrap: str) -> OperatorSettings:
    """Of an operator that has nothing but Kafka."""
    nowhere = {"dynamodb_endpoint": "http://127.0.0.1:1", "redis_url": "redis://127.0.0.1:1/0"}
    return load_operator_settings({}, image="x", kafka_bootstrap=bootstrap, kafka_replication=1, **nowhere)


def product(given: OperatorSettings, uid: str) -> dict[str, Callable[[], object]]:
    """By kind of request; each raises LogUnavailable where it has no answer."""
    hands = Backends(given)
    settings, spare = given.role_settings(uid), given.role_settings(f"{uid}-spare")
    tally, projector = LogAdmin(settings, isolated=False), LogAdmin(settings)
    return {
        **{f"operator: owned {number}": lambda: known(hands.owned(uid)) for number in range(4)},
        "operator: describe": lambda: hands.has_topics(uid),
        "operator: create": lambda: LogAdmin(spare).create_topics(1),
        "operator: delete": lambda: hands.delete_topics(f"{uid}-spare"),
        "operator: seal": LogAdmin(settings).seal_votes,
        "role that starts: describe": lambda: start(settings),
        "tally: describe": lambda: tally.describe_votes(2.0),
        "projector: ends": lambda: projector.end_offsets(PARTITIONS),
        "recount: starts and ends": lambda: bounds(LogAdmin(settings)),
    }


def known(owned: int | None) -> int:
    if owned is None:
        raise LogUnavailable("Kafka did not say")
    return owned


def start(settings: Settings) -> tuple[str, int] | None:
    admin = LogAdmin(settings, isolated=False)
    admin.require_brokers()
    return admin.describe_votes()


def bounds(admin: LogAdmin) -> tuple[list[int], list[int]]:
    return admin.start_offsets(PARTITIONS), admin.end_offsets(PARTITIONS)


def mutant(given: OperatorSettings, uid: str) -> dict[str, Callable[[], object]]:
    """The same question from four threads, as many as the product asks it from."""
    settings = given.role_settings(uid)
    return {f"owned {number}": lambda: known(owned_once(settings)) for number in range(4)}


def owned_once(settings: Settings) -> int | None:
    group = tally_group(settings.session_uid)
    admin = AdminClient(client_config(settings))
    try:
        asked = admin.describe_consumer_groups([group], request_timeout=_OLD_TIMEOUT_S)
        answer = asked[group].result(timeout=_OLD_TIMEOUT_S)
    except (KafkaException, TimeoutError):
        return None
    return len(answer.members)


def ask(name: str, request: Callable[[], object], seen: Counter[str]) -> None:
    while True:
        with suppress(LogUnavailable):
            request()
            seen[name] += 1
        time.sleep(_PAUSE_S)


def main() -> None:
    kind, bootstrap, uid = sys.argv[1:]
    threading.excepthook = _stop
    kinds = {"product": product, "mutant": mutant}[kind](operator_settings(bootstrap), uid)
    seen: Counter[str] = Counter(dict.fromkeys(kinds, 0))
    for name, request in kinds.items():
        threading.Thread(target=ask, args=(name, request, seen), daemon=True).start()
    while True:
        print(json.dumps(seen), flush=True)
        time.sleep(0.25)


def _stop(what: threading.ExceptHookArgs) -> None:
    """Anything but LogUnavailable is a fault of its own."""
    print(repr(what.exc_value), flush=True)
    os._exit(3)


if __name__ == "__main__":
    main()
