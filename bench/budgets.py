"""What the product is to cost, and whether it does, by what was measured. Pure."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.running import Figures, median

NOT_MEASURED = "Not measured yet"
TALLY_MICROS, TALLY_RATIO = 8.0, 3.0
INGEST_RATIO = 0.75
BATCH_RATE = 100_000
RECOUNT_RATE = 150_000
REBUILD_RATE = 300_000
UNITS_SHARE = 1 / 25
SCREEN_P99_MILLIS = 500.0
_ONE, _TWO, _STREAMS = "Psephos, 1 worker", "Psephos, 2 workers", "Kafka Streams 4.3.1"


class Verdict(NamedTuple):
    """met: None where it is not measured."""

    measured: str
    met: bool | None

    @property
    def word(self) -> str:
        return "" if self.met is None else "met" if self.met else "**missed**"


class Budget(NamedTuple):
    """One line of the budgets. `found` raises LookupError where a figure is missing."""

    what: str
    wanted: str
    found: Callable[[Mapping[str, Figures]], Verdict]

    def judge(self, measured: Mapping[str, Figures]) -> Verdict:
        try:
            return self.found(measured)
        except LookupError:
            return Verdict(NOT_MEASURED.lower(), None)


def _tally_cpu(measured: Mapping[str, Figures]) -> Verdict:
    by_votes = {
        int(votes): median(found[_ONE], "cpu_us_a_vote") for votes, found in _tallies(measured, _ONE).items()
    }
    text = ", ".join(f"{micros:.1f} µs at {votes:,} votes" for votes, micros in by_votes.items())
    return Verdict(text, max(by_votes.values()) <= TALLY_MICROS)


def _tally_ratio(measured: Mapping[str, Figures]) -> Verdict:
    """As many workers as Kafka Streams has threads, on the same cores; one worker is told too."""
    texts, ratios = [], []
    for votes, found in _tallies(measured, _ONE, _TWO, _STREAMS).items():
        peer = median(found[_STREAMS], "votes_a_second")
        one, two = (median(found[name], "votes_a_second") / peer for name in (_ONE, _TWO))
        texts.append(f"{two:.1f}x (1 worker: {one:.1f}x) at {int(votes):,} votes")
        ratios.append(two)
    return Verdict(", ".join(texts), min(ratios) >= TALLY_RATIO)


def _ingest(measured: Mapping[str, Figures]) -> Verdict:
    ratio = measured["ingest"]["ratio"]["application"]["rate"]
    return Verdict(f"{ratio:.2f}", ratio >= INGEST_RATIO)


def _batch(measured: Mapping[str, Figures]) -> Verdict:
    rate = median(_rounds(measured["batch"]["rounds"], "subject"), "votesPerCoreSecond")
    return Verdict(f"{rate:,.0f} votes/s", rate >= BATCH_RATE)


def _screen(measured: Mapping[str, Figures]) -> Verdict:
    rounds = _rounds(measured["screen"]["rounds"], "half load")
    millis, missing = median(rounds, "p99Millis"), sum(each["missing"] for each in rounds)
    text = f"{millis:.0f} ms at {rounds[0]['votesPerSecond']:,} votes/s"
    return Verdict(text, millis <= SCREEN_P99_MILLIS and not missing)


def _of_the_ledger(name: str, unit: str, at_least: float) -> Callable[[Mapping[str, Figures]], Verdict]:
    def found(measured: Mapping[str, Figures]) -> Verdict:
        grown = measured["ledger"]["grown"]
        text = ", ".join(f"{each[name]:,.0f}" for each in grown)
        sizes = ", ".join(f"{each['votes']:,}" for each in grown)
        return Verdict(f"{text} {unit} at {sizes} votes", all(each[name] >= at_least for each in grown))

    return found


def _units(measured: Mapping[str, Figures]) -> Verdict:
    share = max(each["of_one_item_a_vote"] for each in measured["ledger"]["grown"])
    return Verdict(f"1/{1 / share:.0f}", share <= UNITS_SHARE)


def _tallies(measured: Mapping[str, Figures], *contenders: str) -> dict[str, Figures]:
    """The runs, by votes, in which all of these have been measured. Raises LookupError if there is none."""
    runs = measured["tally"]["runs"].items()
    found = {votes: by_name for votes, by_name in runs if all(by_name.get(name) for name in contenders)}
    if not found:
        raise LookupError(contenders)
    return found


def _rounds(found: Figures, name: str) -> list[Figures]:
    """Raises LookupError if there is none."""
    rounds: list[Figures] = found[name]
    if not rounds:
        raise LookupError(name)
    return rounds


BUDGETS = (
    Budget("tally, ledger and transaction included", f"at most {TALLY_MICROS:.0f} µs of CPU a vote", _tally_cpu),
    Budget(
        "the same, beside Kafka Streams (no ledger)",
        f"at least {TALLY_RATIO:.0f}x its votes/s",
        _tally_ratio,
    ),
    Budget("ingest, one vote a request", f"at least {INGEST_RATIO} of aiohttp's no-op handler", _ingest),
    Budget("ingest, batches", f"at least {BATCH_RATE:,} votes/s of a core", _batch),
    Budget(
        "recount, both sources",
        f"at least {RECOUNT_RATE:,} votes/s of a core",
        _of_the_ledger("recounted_votes_a_core_second", "votes/s", RECOUNT_RATE),
    ),
    Budget(
        "store rebuilt from the ledger",
        f"at least {REBUILD_RATE:,} voters/s by the clock",
        _of_the_ledger("rebuilt_voters_a_second", "voters/s", REBUILD_RATE),
    ),
    Budget("write units", "at most 1/25 of one item a vote", _units),
    Budget("vote to screen, at half load", f"p99 at most {SCREEN_P99_MILLIS:.0f} ms", _screen),
)
