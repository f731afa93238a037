"""Importing this module reads what `psephos.adapters.dynamodb.descriptions` keeps, for a fork server."""

from psephos.adapters.dynamodb.descriptions import read_descriptions

read_descriptions()
