"""Runs the benchmarks: `python -m bench [NAME ...] [--size full]`. `--draw` draws what was measured before."""

import argparse
import importlib
import time
from typing import get_args

from bench.running import FOLDER, Size, keep, kept, say
from psephos.observability import configure_logs

#: In the order in which they run: each a module of this package.
BENCHMARKS = ("tally", "workers", "ledger", "ingest", "batch", "screen")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; without: all")
    parser.add_argument("--size", choices=get_args(Size), default="quick", help="quick: a few minutes in all")
    parser.add_argument("--draw", action="store_true", help="only draw the plots again, from the JSON files")
    wanted = parser.parse_args()
    unknown = [name for name in wanted.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    configure_logs(role="bench", level="warning", form="console")
    for name in wanted.names or BENCHMARKS:
        module = importlib.import_module(f"bench.{name}")
        if not wanted.draw:
            begun = time.monotonic()
            say(f"{name} ({wanted.size})")
            path = keep(name, module.measure(wanted.size), wanted.size)
            say(f"{name}: {time.monotonic() - begun:.0f} s, {path}")
        module.draw(kept(name), FOLDER)


if __name__ == "__main__":
    main()
