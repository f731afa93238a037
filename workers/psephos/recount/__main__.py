"""`python -m psephos.recount [--audit]`, configured by the environment like `psephos recount`."""

import sys

from psephos.genesis import GenesisMismatch
from psephos.ledger import LedgerMissing, LedgerUnavailable
from psephos.log import LogUnavailable
from psephos.platform.settings import SettingsError, load_settings
from psephos.recount.errors import RecountError
from psephos.recount.main import run
from psephos.results import encode_document

FAILURES = (RecountError, SettingsError, GenesisMismatch, LogUnavailable, LedgerUnavailable, LedgerMissing)


def main(arguments: list[str]) -> int:
    """Prints the report as JSON; answers the exit code: 0 agrees, 3 differs, 2 could not be done."""
    try:
        report = run(load_settings(), audit="--audit" in arguments)
    except FAILURES as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 2
    sys.stdout.buffer.write(encode_document(report.to_json()) + b"\n")
    return report.exit_code


if __name__ == "__main__":  # processes that recount side by side import this module
    sys.exit(main(sys.argv[1:]))
