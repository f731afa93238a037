"""`python -m psephos.ingest`, configured by the environment like `psephos ingest`.

`--index N` makes it one of several processes that share the port; their parent starts them so.
"""

import sys

from psephos.genesis import GenesisMismatch
from psephos.ingest.main import run, serve
from psephos.ledger import LedgerUnavailable
from psephos.log import LogUnavailable
from psephos.platform.settings import SettingsError, load_settings
from psephos.platform.signals import write_stacks_when_asked


def _main(arguments: list[str]) -> int:
    write_stacks_when_asked()
    try:
        settings = load_settings()
        if arguments[:1] == ["--index"]:
            serve(settings, index=int(arguments[1]))
        else:
            run(settings)
    except (SettingsError, GenesisMismatch, LogUnavailable, LedgerUnavailable) as error:
        sys.stderr.write(f"psephos ingest: {error}\n")
        return 2
    return 0


sys.exit(_main(sys.argv[1:]))
