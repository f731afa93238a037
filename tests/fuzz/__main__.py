"""`make fuzz`: each target for some seconds, by atheris (libFuzzer): inputs that reach new branches breed others.

    python -m tests.fuzz [--seconds 20] [TARGET...]

Prints cases and findings a target; exit code 1 when there is a finding. An input that found something is kept in
`build/fuzz/TARGET`, as are the inputs that reached new branches: the next run goes on with them.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

KEPT = Path(__file__).parents[2] / "build" / "fuzz"
LONGEST_INPUT = 4_096
MOST_MEMORY_MB = 2_048
SLOWEST_S = 20  # an input that takes longer is a finding: crowded machines have slow moments
START_S = 600  # instrumenting the code takes half a minute on a quiet machine


class Outcome(NamedTuple):
    """Of a target: inputs tried, branches reached, and the file of an input that is a finding."""

    cases: int
    reached: int
    finding: str | None
    said: str


def main() -> int:
    """All targets that were named, one after the other; the exit code."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("targets", nargs="*", help="all without one")
    arguments.add_argument("--seconds", type=int, default=20, help="for each target")
    arguments.add_argument("--one", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one:
        _run_here(given.one, given.seconds)
        return 0
    from tests.fuzz.targets import TARGETS

    names = given.targets or [target.name for target in TARGETS]
    unknown = set(names) - {target.name for target in TARGETS}
    if unknown:
        arguments.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(t.name for t in TARGETS)}")
    print(f"{'target':24}{'cases':>12}{'branches':>10}  findings", flush=True)
    findings = 0
    for name in names:
        outcome = _run(name, given.seconds)
        findings += outcome.finding is not None
        print(f"{name:24}{outcome.cases:>12,}{outcome.reached:>10,}  {outcome.finding or 'none'}", flush=True)
        if outcome.finding is not None:
            print(outcome.said, flush=True)
    return 1 if findings else 0


def _run(name: str, seconds: int) -> Outcome:
    """In a process of its own, as libFuzzer ends the one that it runs in."""
    command = [sys.executable, "-m", "tests.fuzz", "--one", name, "--seconds", str(seconds)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=START_S + seconds, check=False, env=os.environ
    )
    cases = re.findall(r"(?:number_of_executed_units:\s*|^#)(\d+)", done.stderr, re.MULTILINE)
    reached = re.findall(r"\bcov: (\d+)", done.stderr)
    written = re.search(r"Test unit written to (\S+)", done.stderr)
    failed = written.group(1) if written else f"exit code {done.returncode}" if done.returncode else None
    return Outcome(
        max(map(int, cases), default=0), int(reached[-1]) if reached else 0, failed, done.stderr[-3_000:]
    )


def _run_here(name: str, seconds: int) -> None:
    import atheris

    with atheris.instrument_imports(include=["psephos"]):
        from tests.fuzz.targets import TARGETS

    target = next(target for target in TARGETS if target.name == name)
    folder = KEPT / name
    seeds = folder / "inputs"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (seeds / f"seed-{number}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": max(LONGEST_INPUT, *(2 * len(seed) for seed in target.seeds)),
        "timeout": SLOWEST_S,
        "rss_limit_mb": MOST_MEMORY_MB,
        "artifact_prefix": f"{folder}/",
        "print_final_stats": 1,
    }
    settings = [f"-{option}={value}" for option, value in options.items()]

    def run(data: bytes) -> None:
        target.run(data)

    atheris.Setup([sys.argv[0], *settings, str(seeds)], run)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
