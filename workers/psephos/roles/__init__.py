"""The processes of a session: they meet in Kafka, the ledger and Redis, not in code."""
