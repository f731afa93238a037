"""Runs the benchmarks. `python -m bench page` writes docs/benchmarks/README.md anew from what was measured.

After each measurement its figures are in the JSON file: a run that is ended, or fails, leaves what it has.
"""

import argparse
import importlib
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from bench import page
from bench.running import FOLDER, SMOKE_FOLDER, Size, keep, kept, say
from psephos.platform.logs import configure_logs

#: In the order in which they run, each a module of this package; with the minutes of the full size on two cores.
BENCHMARKS = {
    "tally": 13,
    "workers": 8,
    "ledger": 11,
    "ingest": 6,
    "batch": 4,
    "screen": 5,
    "sessions": 6,
    "obeying": 1,
}
PAGE = "page"


def main() -> None:
    wanted = _arguments()
    configure_logs(role="bench", level="warning", form="console")
    if wanted.names == [PAGE]:
        say(f"{page.write()}")
        return
    folder = wanted.folder or (SMOKE_FOLDER if wanted.size == "smoke" else FOLDER)
    names = wanted.names or list(BENCHMARKS)
    done = _done if len(names) == 1 else _done_apart
    failed = [name for name in names if not done(name, wanted.size, folder, only_draw=wanted.draw)]
    if folder == FOLDER:
        page.write()
    if failed:
        raise SystemExit(f"not run to the end: {', '.join(failed)}")


def _arguments() -> argparse.Namespace:
    minutes = ", ".join(f"{name} {number}" for name, number in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        epilog=f"Minutes of the full size on two quiet cores: {minutes}; all: {sum(BENCHMARKS.values())}.",
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}, or {PAGE}; without: all"
    )
    sizes = "smoke: seconds each, to see that it runs, into build/benchmarks; quick: some minutes in all"
    parser.add_argument("--size", choices=get_args(Size), default="quick", help=sizes)
    parser.add_argument("--folder", type=Path, help="where the files go")
    parser.add_argument("--draw", action="store_true", help="only draw the plots again, from the JSON files")
    wanted = parser.parse_args()
    unknown = _unknown(wanted.names)
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}, and {PAGE} alone")
    return wanted


def _unknown(names: Sequence[str]) -> list[str]:
    return [] if names == [PAGE] else [name for name in names if name not in BENCHMARKS]


def _done_apart(name: str, size: Size, folder: Path, *, only_draw: bool) -> bool:
    """The same in a process of its own: whatever it leaves behind, or dies of, is not the next one's."""
    command = (sys.executable, "-X", "faulthandler", "-m", "bench", name, "--size", size, "--folder", str(folder))
    return subprocess.run((*command, *(("--draw",) if only_draw else ())), check=False).returncode == 0


def _done(name: str, size: Size, folder: Path, *, only_draw: bool) -> bool:
    """Whether it came to its end; what it has measured is kept and drawn anyway."""
    module, whole, found = importlib.import_module(f"bench.{name}"), True, only_draw
    if not only_draw:
        begun, figures = time.monotonic(), None
        say(f"{name} ({size})")
        try:
            for figures in module.measure(size):
                keep(name, figures, size, folder, complete=False)
        except Exception:
            whole = False
            say(traceback.format_exc())
        if whole and figures is not None:
            keep(name, figures, size, folder)
        found = figures is not None
        say(f"{name}: {time.monotonic() - begun:.0f} s{'' if whole else ', FAILED'}")
    if found:
        module.draw(kept(name, folder), folder)
    return whole


if __name__ == "__main__":
    main()
