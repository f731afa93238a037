"""The Kafka transaction of a round: absolute tallies and consumed offsets, atomically (EOS v2).

It begins after the blocks are in the ledger: what it publishes can always be derived again from there, so a
transaction that fails is aborted and its tallies go out with the next one.
"""

import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from psephos.adapters.kafka import client_config, tallies_topic, votes_topic
from psephos.formats.tallies import TallyRecord, encode_tally, tally_key
from psephos.platform.errors import FAILED, PsephosError
from psephos.platform.logs import get_logger
from psephos.platform.settings import Settings
from psephos.roles.tally import metrics
from psephos.roles.tally.crash import crash_point

TRANSACTION_TIMEOUT_MS = 5_000  # an open transaction hides everyone's later tallies
_START_S = 30.0
_CALL_S = 5.0
_TRIES = 3
_UNSETTLED_TRIES = 4  # tries at ending one transaction, _CALL_S and more each, before its producer is given up
_STUCK_S = 20.0  # longer than all tries of a call that keeps its time-out, shorter than the liveness limit
log = get_logger()


class Fenced(PsephosError):
    """Another worker with the same ordinal has taken over: this process must end."""

    exit_code = FAILED


class Publisher:
    """Publishes this worker's tallies. The transactional id is the worker's ordinal.

    A producer that is beyond use (its transaction outlived the time-out while brokers were unavailable, another
    process used its id, it can't end a transaction, or one of its calls does not return) is replaced by a new one,
    whose tallies are derived from the ledger like all others. The consumer group decides whether this process
    still owns the ordinal.
    """

    def __init__(self, settings: Settings) -> None:
        """Blocks until transactions left open by an earlier process with this ordinal are aborted."""
        uid = settings.session_uid
        self._votes, self._tallies = votes_topic(uid), tallies_topic(uid)
        self._config = {
            **client_config(settings),
            "transactional.id": f"psephos.{uid}.tally.{settings.worker}",
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "linger.ms": 0,
        }
        self._committing = False
        self._unsettled = 0  # how many times in a row a transaction could be neither committed nor aborted
        self._producer: Producer | None = self._start(_START_S)

    def publish(self, tallies: Sequence[TallyRecord], group_metadata: Any) -> bool:
        """Returns whether it was committed. `group_metadata`: as captured when the records were fetched."""
        try:
            producer = self._producer = self._producer or self._start(_CALL_S)
            if self._committing:
                self._commit(producer)
            producer.begin_transaction()
            for tally in tallies:
                producer.produce(self._tallies, encode_tally(tally), tally_key(tally.partition), tally.partition)
            offsets = [TopicPartition(self._votes, tally.partition, tally.end) for tally in tallies]
            in_time(lambda: self._call(producer.send_offsets_to_transaction, offsets, group_metadata, _CALL_S))
            producer.flush(_CALL_S)  # the commit would wait for it anyway; this makes the next step's name true
            crash_point("in-transaction")
            self._commit(producer)
        except (KafkaException, BufferError) as error:
            self._abort(error)
            return False
        except TimeoutError as error:
            metrics.TRANSACTIONS.labels("aborted").inc()
            log.warning("transaction given up", why=str(error))
            self._producer = None  # the next one with this id aborts what this one left open
            return False
        metrics.TRANSACTIONS.labels("committed").inc()
        self._unsettled = 0
        return True

    def _start(self, timeout_s: float) -> Producer:
        """Returns a producer, once all earlier transactions with its id are aborted."""
        producer = Producer(self._config)
        self._call(producer.init_transactions, timeout_s)
        return producer

    def _commit(self, producer: Producer) -> None:
        """Commits the transaction. NB: if the reply is late, the client only lets it be awaited, not aborted."""
        self._committing = True
        self._call(producer.commit_transaction, _CALL_S)
        self._committing = False

    def _call(self, call: Any, *arguments: Any) -> None:
        """Makes a call, and repeats it if the client says that this may help."""
        for attempt in range(_TRIES):
            try:
                call(*arguments)
            except KafkaException as error:
                if not error.args[0].retriable() or attempt == _TRIES - 1:
                    raise
            else:
                return

    def _abort(self, error: Exception) -> None:
        cause = error.args[0] if error.args else error
        metrics.TRANSACTIONS.labels("aborted").inc()
        if self._committing and isinstance(cause, KafkaError) and cause.retriable():
            log.warning("transaction not committed yet", why=str(cause))
            self._still_unsettled()
            return
        self._committing = False
        log.warning("transaction aborted", why=str(cause))
        if self._producer is not None and not _fatal(cause):
            try:
                self._producer.abort_transaction(_CALL_S)  # once: the next round tries again
                self._unsettled = 0
            except KafkaException as again:
                cause = again.args[0]
                log.warning("transaction not aborted yet", why=str(cause))
                self._still_unsettled()
        if _fatal(cause):
            self._producer = None

    def _still_unsettled(self) -> None:
        """Gives up a producer that can't end its transaction: the next one with its id has the coordinator end it.

        NB: after coordinators moved, librdkafka was seen to report forever that an abort is in progress, and that
        it timed out. Giving up a commit whose reply is missing does no harm: tallies are absolute.
        """
        self._unsettled += 1
        if self._unsettled >= _UNSETTLED_TRIES:
            log.warning("producer given up", why=f"no end of its transaction in {self._unsettled} tries")
            self._producer, self._committing, self._unsettled = None, False, 0


def in_time(call: Callable[[], None]) -> None:
    """Makes a call in a separate thread. Raises what it raises, TimeoutError if it does not return.

    NB: `send_offsets_to_transaction` waits forever if the group's coordinator became unavailable at the wrong
    moment (librdkafka issue 5456). Its thread is then left running.
    """
    answers: SimpleQueue[BaseException | None] = SimpleQueue()

    def made() -> None:
        try:
            call()
        except BaseException as error:
            answers.put(error)
        else:
            answers.put(None)

    threading.Thread(target=made, name="offsets", daemon=True).start()
    try:
        error = answers.get(timeout=_STUCK_S)
    except Empty:
        raise TimeoutError(f"the client did not come back within {_STUCK_S:.0f} s") from None
    if error is not None:
        raise error


def _fatal(cause: Any) -> bool:
    """Returns whether the producer that reported this is beyond use."""
    return isinstance(cause, KafkaError) and cause.fatal()
