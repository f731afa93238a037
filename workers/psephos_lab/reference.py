"""The expected outcome of an election, by the shortest rules that define it. Pure.

It reads the voters' own journal in the order of the log. The fate of each record and the totals share no code with
the tally or the recount: an error that both of them made alike would show as a difference from this. The outcome
is counted by `psephos.domain.counting`, as the recount does; published elections check that.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from psephos.domain.ballots import MAX_REVOTES
from psephos.domain.counting import MILLION, CountingRules, count, outcome_json
from psephos.domain.session import Session

COUNTED, SUPERSEDED, DUPLICATE, QUOTA = "counted", "superseded", "duplicate", "rejected quota"
"""The gateway's words for the fate of a receipt's vote."""


class Allowance(NamedTuple):
    """The votes that each voter has. votes: how many are accepted at most; last: only the newest one counts."""

    votes: int
    last: bool

    @classmethod
    def of(cls, session: Session) -> "Allowance":
        last = session.spec.voters.revote == "last"
        return cls(MAX_REVOTES if last else session.spec.voters.votes_per_voter, last)

    @property
    def several(self) -> bool:
        """Whether a voter may vote more than once."""
        return self.votes > 1


class Vote(NamedTuple):
    """One record of the log, as its voter knows it. key: its Idempotency-Key; body: the ballot as sent."""

    subject: str
    key: str
    body: Mapping[str, object]


def fates(votes: Iterable[Vote], allowance: Allowance) -> list[str]:
    """Returns what becomes of each vote; `votes` are in the order of the log."""
    accepted: dict[str, dict[str, int]] = defaultdict(dict)
    found: list[str] = []
    for place, vote in enumerate(votes):
        mine = accepted[vote.subject]
        if vote.key in mine or len(mine) == allowance.votes:
            found.append(DUPLICATE if vote.key in mine or not allowance.several else QUOTA)
            continue
        if mine and allowance.last:
            found[max(mine.values())] = SUPERSEDED
        mine[vote.key] = place
        found.append(COUNTED)
    return found


def totals(bodies: Iterable[Mapping[str, object]], options: Sequence[str], *, ranked: bool) -> dict[str, int]:
    """Returns votes by option: first preferences of ranked ballots, sums of scores; each voter has weight one."""
    sums: Counter[str] = Counter(dict.fromkeys(options, 0))
    for body in bodies:
        scores, choices = body.get("scores", {}), body.get("choices", ())
        assert isinstance(scores, Mapping)
        assert isinstance(choices, Sequence)
        sums.update(scores)
        sums.update(choices[:1] if ranked else choices)
    return dict(sums)


def differences(
    session: Session,
    document: Mapping[str, Any],
    counted: Sequence[Mapping[str, object]],
    numbers: Mapping[str, int],
    *,
    unknown: int = 0,
) -> Iterator[str]:
    """Yields where the result differs from these ballots and numbers of votes by fate, one line per difference.

    `unknown`: how many records no journal has, as they were not confirmed: each repeats one that was sent again.
    """
    told = document["turnout"]
    replaced = numbers.get(SUPERSEDED, 0)
    yield from _compare("accepted", told["accepted"], numbers.get(COUNTED, 0) + replaced)
    yield from _compare("superseded", told["superseded"], replaced)
    for name, found in ((DUPLICATE, told["duplicate"]), (QUOTA, told["rejected"]["quota"])):
        wanted = numbers.get(name, 0)
        yield from _compare(name, found, min(max(found, wanted), wanted + unknown))
    if document["totals"] is not None:
        ranked = session.spec.ballot.type == "ranked"
        yield from _compare("totals", document["totals"], totals(counted, session.option_ids, ranked=ranked))
    if document["outcome"] is not None and session.spec.ballot.tie_break == "declared":
        rules = CountingRules.of(session)
        patterns = Counter(rules.ballot.encode(body) for body in counted)
        outcome = count(rules, {ballot: number * MILLION for ballot, number in patterns.items()})
        yield from _compare("outcome", document["outcome"], outcome_json(outcome, session.option_ids))


def _compare(what: str, found: object, wanted: object) -> Iterator[str]:
    if found != wanted:
        yield f"{what}: {found}; the reference model says {wanted}"
