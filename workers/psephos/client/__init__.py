"""Code shared by `psephos vote`, `results`, `tokens` and `kubectl psephos`: HTTP, terminal tables, tokens."""
