"""Byte formats: what is written to Kafka, to the ledger, to Redis and to viewers. Pure: no I/O, no clock.

One module and one codec per format. Every decoder takes bytes from outside and raises `Malformed` with what was
wrong, never anything else. Formats are versioned; `docs/architecture.md` describes each byte.
"""
