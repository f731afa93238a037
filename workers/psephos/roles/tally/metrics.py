"""Metrics of a tally worker."""

from prometheus_client import Counter, Gauge, Histogram

from psephos.platform.registry import role_registry

REGISTRY = role_registry()

RECORDS = Counter(
    "psephos_tally_records_total", "Records decided and committed, by class.", ["class"], registry=REGISTRY
)
BLOCKS = Counter(
    "psephos_tally_blocks_total", "Ledger blocks written by this worker.", ["partition"], registry=REGISTRY
)
ADOPTED = Counter(
    "psephos_tally_blocks_adopted_total", "Blocks of another owner taken over after a conflict.", registry=REGISTRY
)
LOST_ANSWERS = Counter(
    "psephos_tally_lost_answers_total",
    "Own blocks found in the ledger: the put's answer had been lost.",
    registry=REGISTRY,
)
RECOVERED = Counter(
    "psephos_tally_blocks_recovered_total", "Blocks applied to stores behind the ledger.", registry=REGISTRY
)
REBUILT = Counter(
    "psephos_tally_stores_rebuilt_total", "Local stores wiped and built again from the ledger.", registry=REGISTRY
)
TRANSACTIONS = Counter(
    "psephos_tally_transactions_total", "Kafka transactions, by outcome.", ["outcome"], registry=REGISTRY
)
LEDGER_RETRIES = Counter(
    "psephos_tally_ledger_retries_total", "Puts tried again as the ledger did not answer.", registry=REGISTRY
)
HELD_BACK = Counter(
    "psephos_tally_held_back_total",
    "Polls with fetching paused: the ledger was slow to take blocks.",
    registry=REGISTRY,
)
GAPS = Counter(
    "psephos_tally_seeks_total",
    "Records that came out of order: the partition was sought again.",
    registry=REGISTRY,
)
PUT_SECONDS = Histogram(
    "psephos_tally_put_seconds",
    "From a block's first put until the ledger answered.",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
    registry=REGISTRY,
)
LAG = Gauge(
    "psephos_tally_lag_records", "Records in the log behind the ledger's head.", ["partition"], registry=REGISTRY
)
HEAD = Gauge("psephos_tally_head_offset", "End offset of the last block.", ["partition"], registry=REGISTRY)
OWNED = Gauge("psephos_tally_partitions", "Partitions owned, by stage.", ["stage"], registry=REGISTRY)
