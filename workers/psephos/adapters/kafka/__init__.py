"""The log: Kafka. Names and settings of a session's topics, creating and sealing them, and the control topic."""

from psephos.adapters.kafka.admin import LogAdmin, read_batches, read_records
from psephos.adapters.kafka.admin_process import ENDED as ADMIN_PROCESSES_ENDED
from psephos.adapters.kafka.client import (
    EAGER,
    LogUnavailable,
    client_config,
    consumer_config,
    control_topic,
    tallies_topic,
    tally_group,
    votes_topic,
)
from psephos.adapters.kafka.control import (
    ControlFollower,
    ControlRecord,
    read_control,
    read_control_record,
    write_control,
)
from psephos.adapters.kafka.sealing import broker_time_ms, mark_closed, refusing_partitions

__all__ = [
    "ADMIN_PROCESSES_ENDED",
    "EAGER",
    "ControlFollower",
    "ControlRecord",
    "LogAdmin",
    "LogUnavailable",
    "broker_time_ms",
    "client_config",
    "consumer_config",
    "control_topic",
    "mark_closed",
    "read_batches",
    "read_control",
    "read_control_record",
    "read_records",
    "refusing_partitions",
    "tallies_topic",
    "tally_group",
    "votes_topic",
    "write_control",
]
