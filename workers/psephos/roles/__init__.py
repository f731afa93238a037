"""The processes of a session. They share Kafka, the ledger and Redis, but no code."""
