"""The object store (S3): electoral rolls are read from it, final results are written to it.

Recount, ingest and operator use it. No vote depends on it: the result is in the ledger.
"""

from psephos.adapters.s3.address import Address, address_of, exports_address
from psephos.adapters.s3.store import ObjectMissing, ObjectStore, ObjectStoreError, ObjectVersion

__all__ = [
    "Address",
    "ObjectMissing",
    "ObjectStore",
    "ObjectStoreError",
    "ObjectVersion",
    "address_of",
    "exports_address",
]
