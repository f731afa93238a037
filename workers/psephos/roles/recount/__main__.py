"""`python -m psephos.roles.recount [--audit]`, configured by the environment like `psephos recount`."""

import sys

from psephos.domain.results import encode_document
from psephos.platform.program import run_program
from psephos.platform.settings import load_settings
from psephos.roles.recount.main import run


def main(arguments: list[str]) -> int:
    """Prints the report as JSON; returns the exit code: 0 for agreement, 3 for differences, 2 if not done."""
    report = run(load_settings(), audit="--audit" in arguments)
    sys.stdout.buffer.write(encode_document(report.to_json()) + b"\n")
    return report.exit_code


if __name__ == "__main__":  # parallel recount processes import this module
    sys.exit(run_program("psephos recount", lambda: main(sys.argv[1:])))
