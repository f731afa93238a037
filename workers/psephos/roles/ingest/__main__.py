"""`python -m psephos.roles.ingest`, configured by the environment like `psephos ingest`.

`--index N` makes it one of several processes that share the port; their parent starts them this way.
"""

import sys

from psephos.platform.program import run_program
from psephos.platform.settings import load_settings
from psephos.platform.signals import write_stacks_when_asked
from psephos.roles.ingest.main import run, serve


def _main(arguments: list[str]) -> None:
    write_stacks_when_asked()
    settings = load_settings()
    if arguments[:1] == ["--index"]:
        serve(settings, index=int(arguments[1]))
    else:
        run(settings)


sys.exit(run_program("psephos ingest", lambda: _main(sys.argv[1:])))
