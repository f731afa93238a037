"""Kafka, DynamoDB, Redis and S3: one package each, and nothing else knows their clients."""
