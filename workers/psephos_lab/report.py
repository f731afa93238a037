"""The result of a local election: the one JSON object that programs read, and the text that people read."""

from collections.abc import Iterator, Mapping
from typing import Any

from psephos.client.bars import ranking, shown
from psephos_lab.published import Published
from psephos_lab.voters import Cast

_COLUMN = 12
_LABEL = 36


def result_json(document: Mapping[str, Any], cast: Cast) -> dict[str, Any]:
    """Returns the JSON object, from the signed result document and from what the voters saw."""
    turnout, outcome, recount = document["turnout"], document["outcome"], document["recount"]
    return {
        "session": document["name"],
        "state": document["state"],
        "turnout": {
            **{name: turnout[name] for name in ("received", "accepted", "duplicate", "rejected")},
            "refused": dict(sorted(cast.refused.items())),
        },
        "totals": document["totals"],
        "outcome": outcome and {name: outcome[name] for name in ("method", "winners", "rounds")},
        "recount": {
            "match": recount["match"],
            "logRecords": recount["logRecords"],
            "differences": [
                {name: difference[name] for name in ("partition", "offset", "kind")}
                for difference in recount["differences"]
            ],
        },
    }


def result_text(result: Mapping[str, Any], labels: Mapping[str, str], published: Published | None) -> str:
    """Returns rounds or totals, with what was published next to them, the winner, and what the recount says."""
    outcome = result["outcome"] or {"winners": [], "rounds": []}
    rounds = outcome["rounds"]
    lines: list[str] = []
    if len(rounds) > 1:
        for number, each in enumerate(rounds, start=1):
            beside = published.rounds[number - 1] if published and number <= len(published.rounds) else None
            lines += _tally(f"Round {number}", each["tally"], labels, beside)
            lines += _after(each, labels)
    else:
        lines += _tally("Totals", result["totals"] or {}, labels, published.totals if published else None)
    lines += ["", *_summary(result, labels, outcome["winners"])]
    return "\n".join(lines)


def _tally(
    title: str, tally: Mapping[str, Any], labels: Mapping[str, str], published: Mapping[str, int] | None
) -> Iterator[str]:
    head = f"\n{title:<{_LABEL}}{'counted':>{_COLUMN}}"
    yield head + (f"{'published':>{_COLUMN}}" if published else "")
    for option, votes in ranking(tally):
        line = f"  {labels.get(option, option)[: _LABEL - 3]:<{_LABEL - 2}}{shown(votes):>{_COLUMN}}"
        known = (published or {}).get(option)
        yield line if known is None else f"{line}{shown(known):>{_COLUMN}}  {'=' if known == votes else '≠'}"


def _after(each: Mapping[str, Any], labels: Mapping[str, str]) -> Iterator[str]:
    yield f"  {'(exhausted)':<{_LABEL - 2}}{shown(each['exhausted']):>{_COLUMN}}"
    if each["eliminated"]:
        yield "  out: " + ", ".join(labels.get(option, option) for option in each["eliminated"])


def _summary(result: Mapping[str, Any], labels: Mapping[str, str], winners: list[str]) -> Iterator[str]:
    turnout, recount = result["turnout"], result["recount"]
    rejected, refused = sum(turnout["rejected"].values()), sum(turnout["refused"].values())
    won = ", ".join(labels.get(option, option) for option in winners)
    yield f"{result['state']}: {won + ' won' if won else 'nobody won'}"
    yield (
        f"{turnout['received']:,} records: {turnout['accepted']:,} accepted, {turnout['duplicate']:,} duplicate,"
        f" {rejected:,} rejected; {refused:,} more were refused at the door"
    )
    if recount["match"]:
        yield f"recount: all {recount['logRecords']:,} records of the log agree with the ledger"
        return
    yield f"recount: {len(recount['differences'])} differences between log and ledger"
    for difference in recount["differences"]:
        yield f"  partition {difference['partition']}, offset {difference['offset']}: {difference['kind']}"
