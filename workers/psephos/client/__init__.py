"""What `psephos vote`, `results`, `tokens` and `kubectl psephos` share: HTTP, terminal tables, tokens."""
