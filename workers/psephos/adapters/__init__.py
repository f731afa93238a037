"""Kafka, DynamoDB, Redis and S3: one package each; no other code uses their clients."""
