"""Importing this reads the ledger's descriptions, see `psephos.ledger.descriptions`: for a fork server."""

from psephos.ledger.descriptions import read_descriptions

read_descriptions()
