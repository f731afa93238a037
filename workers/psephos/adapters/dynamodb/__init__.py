"""The ledger: DynamoDB, the commit point. Conditional writes decide; no item is ever changed.

One table for all sessions, key (`pk`, `sk`), payload in `b`:

| what | pk | sk |
|---|---|---|
| genesis, closing, final | `uid#genesis`, `uid#closing`, `uid#final` | 0 |
| block of a partition | `uid#<partition>` | base offset |
| sealed end of a partition | `uid#sealed` | partition |
| verdict of a recount | `uid#verdict#<run>` | partition |
| ballot patterns of a verdict | `uid#patterns#<run>#<partition>` | chunk |
"""

from psephos.adapters.dynamodb.ledger import Conflict, Ledger, LedgerMissing, LedgerUnavailable, StoredBlock

__all__ = ["Conflict", "Ledger", "LedgerMissing", "LedgerUnavailable", "StoredBlock"]
