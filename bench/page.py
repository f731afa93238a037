"""docs/benchmarks/README.md: its figures are written from the JSON files, its text is written by hand.

Between `<!-- figures: NAME -->` and `<!-- end -->` stands what `SECTIONS[NAME]` makes of all that was measured.
The text around it is left as it is.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from bench.budgets import BUDGETS, NOT_MEASURED
from bench.running import FOLDER, Figures, kept, median

Measured = Mapping[str, Figures]
_SECTION = re.compile(r"(<!-- figures: (?P<name>[a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SERVERS = "Kafka (one broker), Redis and DynamoDB Local (in memory) run on the same cores."


def write(folder: Path = FOLDER) -> Path:
    """Writes the figures of the page anew, from the JSON files beside it. Raises ValueError as `filled`."""
    path = folder / "README.md"
    path.write_text(filled(path.read_text(), measured(folder)))
    return path


def measured(folder: Path) -> dict[str, Figures]:
    """By name, whatever has been measured."""
    return {path.stem: kept(path.stem, folder) for path in sorted(folder.glob("*.json"))}


def filled(text: str, found: Measured) -> str:
    """The page with these figures. Raises ValueError for a section that nobody writes, or one that is missing."""
    named = {each["name"] for each in _SECTION.finditer(text)}
    if named != set(SECTIONS):
        raise ValueError(f"the page has the sections {sorted(named)}, there are figures for {sorted(SECTIONS)}")
    return _SECTION.sub(lambda each: f"{each[1]}{SECTIONS[each['name']](found)}\n{each[4]}", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


# --- Sections


def _budgets(found: Measured) -> str:
    rows = []
    for budget in BUDGETS:
        verdict = budget.judge(found)
        rows.append((budget.what, budget.wanted, verdict.measured, verdict.word))
    return table(("what", "budget", "measured", ""), rows)


def _machine(found: Measured) -> str:
    rows = []
    for name, figures in found.items():
        size = figures["size"] + ("" if figures.get("complete", True) else ", not run to its end")
        rows.append((name, size, figures["machine"]["measuredAt"]))
    text = "\n".join(sorted({_described(figures["machine"]) for figures in found.values()}))
    return f"{text} {_SERVERS}\n\n{table(('benchmark', 'size', 'measured'), rows)}"


def _described(machine: Figures) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    hardware = f"{machine['cores']} cores of an {machine['cpu']}, {machine['memoryGiB']:.0f} GiB"
    return f"{hardware}, Linux {machine['kernel']}, Python {machine['python']} ({packages})."


def _tally(figures: Figures) -> str:
    parts = []
    for votes, by_name in figures["runs"].items():
        rows = [
            (
                name,
                f"{median(rounds, 'votes_a_second'):,.0f}",
                f"{median(rounds, 'cpu_us_a_vote'):.1f} µs",
                f"{median(rounds, 'cpu_us_a_vote_whole'):.1f} µs",
                f"{median(rounds, 'peak_private_mb'):,.0f} MB",
                str(len(rounds)),
            )
            for name, rounds in by_name.items()
            if rounds
        ]
        head = (f"{int(votes):,} votes", "votes/s", "CPU a vote", "with its start", "private memory", "rounds")
        pictures = [f"![{what}](tally-{votes}-{what}.svg)" for what in ("votes-a-second", "cpu-us-a-vote")]
        parts.append("\n".join(pictures) + "\n\n" + table(head, rows))
    return "\n\n".join(parts)


def _workers(figures: Figures) -> str:
    workers = [
        (number, f"{median(rounds, 'votes_a_second'):,.0f}", f"{median(rounds, 'cpu_us_a_vote'):.1f} µs")
        for number, rounds in figures["workers"].items()
        if rounds
    ]
    known = [(f"{each['known']:,}", f"{each['cpu_us_a_vote']:.1f} µs") for each in figures["known"]]
    pictures = "![CPU by workers](workers-cpu.svg)" + ("\n![CPU by voters](store-size-cpu.svg)" if known else "")
    tables = (table(("workers", "votes/s", "CPU a vote"), workers), table(("voters before", "CPU a vote"), known))
    return "\n\n".join((pictures, *tables))


def _ledger(figures: Figures) -> str:
    rows = [
        (
            f"{each['votes']:,}",
            f"{each['rebuilt_voters_a_cpu_second']:,.0f}",
            f"{each['rebuilt_voters_a_second']:,.0f}",
            f"{each['recounted_votes_a_core_second']:,.0f}",
            f"{each['recounted_votes_a_second']:,.0f}",
            f"{each['rebuild_peak_private_mb']:,.0f} MB",
            f"{each['recount_peak_private_mb']:,.0f} MB",
        )
        for each in figures["grown"]
    ]
    head = ("votes", "rebuilt, voters/s of CPU", "by the clock", "recount, votes/s of CPU", "by the clock")
    pictures = "![Speed](ledger-speed.svg)\n![Memory](ledger-memory.svg)"
    return f"{pictures}\n\n{table((*head, 'memory, rebuild', 'memory, recount'), rows)}"


def _units(figures: Figures) -> str:
    rows = [
        (
            f"{each['votes']:,}",
            f"{each['write_units_a_million_votes']:,.0f}",
            f"1/{1 / each['of_one_item_a_vote']:.0f}",
            f"{each['blocks']:,}",
        )
        for each in figures["grown"]
    ]
    return table(("votes", "write units a million votes", "of one item a vote", "blocks"), rows)


def _ingest(figures: Figures) -> str:
    from bench.ingest import NAMES

    rows = []
    for name, rounds in figures["rounds"].items():
        if rounds:
            half = figures["atHalfLoad"].get(name) or []
            late = [f"{median(half, key):.1f} ms" if half else "" for key in ("p50Millis", "p99Millis")]
            speed = f"{median(rounds, 'votesPerSecond'):,.0f}"
            broken = f"{_sum(rounds, 'broken'):,}"
            rows.append((NAMES[name], speed, f"{median(rounds, 'cpuMicros'):.0f} µs", *late, broken))
    head = (
        "one process on one core",
        "requests/s",
        "CPU a request",
        "p50 at half load",
        "p99",
        "broken connections",
    )
    drawn = ("rate", "cpu", "latency") if figures["atHalfLoad"] else ("rate", "cpu")
    pictures = "\n".join(f"![{what}](ingest-{what}.svg)" for what in drawn)
    return f"{pictures}\n\n{table(head, rows)}"


def _batch(figures: Figures) -> str:
    from bench.batch import NAMES

    rows = [
        (
            NAMES[name],
            f"{median(rounds, 'votesPerCoreSecond'):,.0f}",
            f"{median(rounds, 'votesPerSecond'):,.0f}",
            f"{median(rounds, 'cpuMicros'):.1f} µs",
        )
        for name, rounds in figures["rounds"].items()
        if rounds
    ]
    return f"![Batches](batch.svg)\n\n{table(('', 'votes/s of a core', 'by the clock', 'CPU a vote'), rows)}"


def _screen(figures: Figures) -> str:
    rows = [
        (
            name,
            f"{rounds[0]['votesPerSecond']:,}",
            f"{median(rounds, 'p50Millis'):.0f} ms",
            f"{median(rounds, 'p99Millis'):.0f} ms",
            f"{_sum(rounds, 'missing')} of {_sum(rounds, 'probes') + _sum(rounds, 'missing')}",
        )
        for name, rounds in figures["rounds"].items()
        if rounds
    ]
    full = f"Full load, by a flood before: {figures['fullVotesPerSecond']:,.0f} votes a second."
    head = ("", "votes/s", "p50", "p99", "probes that were on no frame")
    return f"![From POST to frame](screen.svg)\n\n{full}\n\n{table(head, rows)}"


def _sum(rounds: Sequence[Figures], name: str) -> int:
    return sum(int(each[name]) for each in rounds)


def _sessions(figures: Figures) -> str:
    rows = [
        (
            f"{each['sessions']}",
            *_mebibytes(each),
            f"{1000 * each['idleCores']:.0f}",
            f"{1000 * each['loadedCores']:.0f}",
        )
        for each in figures["grown"]
    ]
    head = ("sessions", *_MEMORY, "idle, thousandths of a core each", "under load")
    pictures = "![Memory](sessions-memory.svg)\n![CPU](sessions-cpu.svg)"
    grown = f"{pictures}\n\n{table(head, rows)}\n\n{_where_it_ends(figures)}"
    return f"{grown}\n\n{_first_session(figures['first'])}" if figures.get("first") else grown


_MEMORY = ("memory each (PSS)", "private each", "resident each")


def _mebibytes(held: Figures) -> tuple[str, ...]:
    amounts = (held.get(f"{kind}MiB") for kind in ("proportional", "private", "resident"))
    return tuple("not measured" if amount is None else f"{amount:.0f} MiB" for amount in amounts)


def _first_session(first: Figures) -> str:
    """What each of its processes holds after the votes, and what they hold together before and after."""
    rows = [(each["name"], str(each["threads"]), *_mebibytes(each)) for each in first["loaded"]["processes"]]
    for what, held in ((f"all, {first['idleSeconds']:.0f} s idle", first["idle"]), ("all", first["loaded"])):
        rows.append((what, "", *_mebibytes(held)))
    accounted = first["loaded"]["accountedMiB"]
    kernel = "" if accounted is None else f" The kernel accounts {accounted:.0f} MiB to their group."
    said = f"The processes of the first session after {first['votes']:,} votes. Their start took"
    start = f"{first['startCpuSeconds']:.1f} s of CPU."
    return f"{said} {start}{kernel}\n\n{table(('process', 'threads', *_MEMORY), rows)}"


def _where_it_ends(figures: Figures) -> str:
    last = figures["grown"][-1]
    load = f"Under load: {figures['votesPerSecondOfEach']:.0f} votes a second of each session."
    if last["sessions"] == last["wanted"]:
        return load
    return f"{load} {figures['memoryGiB']:.0f} GiB end it at {last['sessions']} sessions of {last['wanted']}."


def _obeying(figures: Figures) -> str:
    from bench.obeying import NAMES

    rows = []
    for name, each in figures["orders"].items():
        millis = sorted(each["obeyedMillis"])
        rows.append((NAMES[name], str(len(millis)), f"{millis[len(millis) // 2]:.0f} ms", f"{millis[-1]:.0f} ms"))
    return f"![Obeying](obeying.svg)\n\n{table(('order', 'orders', 'p50', 'longest'), rows)}"


def _of(name: str, make: Callable[[Figures], str]) -> Callable[[Measured], str]:
    return lambda found: make(found[name]) if name in found else f"{NOT_MEASURED}: `python -m bench {name}`."


SECTIONS: dict[str, Callable[[Measured], str]] = {
    "budgets": _budgets,
    "machine": _machine,
    "tally": _of("tally", _tally),
    "workers": _of("workers", _workers),
    "ledger": _of("ledger", _ledger),
    "units": _of("ledger", _units),
    "ingest": _of("ingest", _ingest),
    "batch": _of("batch", _batch),
    "screen": _of("screen", _screen),
    "sessions": _of("sessions", _sessions),
    "obeying": _of("obeying", _obeying),
}
