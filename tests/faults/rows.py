"""The rows of the fault table (docs/architecture.md, section 2), by the short names that tests use."""

ROWS = {
    "tally killed": "tally killed (SIGKILL) at any step of a round, again and again, under lag",
    "two owners": "two owners of one partition at once (SIGSTOP past the session time-out, then resumed)",
    "store": "local store deleted, truncated, an old copy, or full at commit after the put",
    "ledger": "DynamoDB throttles, times out after having written, or is down for a minute",
    "broker": "broker killed, leader and coordinator moved (three brokers, RF 3), transaction time-out",
    "log": "log truncated or re-created under the ledger",
    "ingest killed": "ingest killed between acknowledgement and answer; clients that retry everything",
    "ingest stopped": "ingest stopped before `closesAt`, resumed behind the marker",
    "controller": "controller dies between fixing the closing time and announcing it",
    "redis": "Redis killed, flushed, unreachable; two projectors",
    "gateway": "gateway killed with viewers on it",
    "versions": "a worker of the next version joins during the vote",
    "poison": "disk full, clock steps, poison records in the topic",
}
