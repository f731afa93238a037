"""Ballots as bytes: exactly one encoding per ballot, so that equal ballots are equal bytes.

All numbers are big-endian; an option is its index in declared order.

======== =====================================================================
single   the option's index, uint16
approval indexes, uint16 each, strictly ascending
ranked   indexes, uint16 each, in order of preference, none twice
score    pairs (index uint16, score int16), strictly ascending by index
blank    no bytes; allowed if and only if `min` is 0
======== =====================================================================

Tally and recount both read ballots with this module; their decisions about voters are made by separate code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import lt
from types import MappingProxyType
from typing import Final

from psephos.domain.session import Session
from psephos.platform.errors import PsephosError

Contributions = tuple[tuple[int, int], ...]
"""(option index, units added to that option's total by a ballot of weight one)."""

_INDEX: Final = 2
_PAIR: Final = 4
_SHOWN: Final = 64
"""Maximum number of characters of a foreign value that a message repeats."""


class InvalidBallot(PsephosError, ValueError):
    """A ballot that may not count.

    `reason` is one of the stable codes `malformed`, `wrong-member`, `unknown-option`,
    `duplicate-option`, `too-few`, `too-many`, `not-an-integer`, `out-of-scale`, `not-canonical`.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True)
class BallotRules:
    """The rules for ballots of one session. `scale` is (lowest, highest) for score, else None."""

    type: str
    option_ids: tuple[str, ...]
    min: int
    max: int
    scale: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        indexes = {option: index for index, option in enumerate(self.option_ids)}
        object.__setattr__(self, "_indexes", MappingProxyType(indexes))

    @classmethod
    def of(cls, session: Session) -> BallotRules:
        ballot = session.spec.ballot
        scale = None if ballot.scale is None else (ballot.scale.min, ballot.scale.max)
        return cls(ballot.type, session.option_ids, ballot.min, ballot.max, scale)

    # --- From and to what people write

    def encode(self, body: Mapping[str, object]) -> bytes:
        """Canonical bytes of an HTTP body, `{"choices": [...]}` or `{"scores": {...}}`.

        Raises:
            InvalidBallot: naming what was found and what is allowed.
        """
        wanted = "scores" if self.type == "score" else "choices"
        for member in body:
            if member != wanted:
                message = f"found the member {_shown(member)}; a {self.type} ballot has {wanted!r} only"
                raise InvalidBallot("wrong-member", message)
        if wanted not in body:
            raise InvalidBallot("wrong-member", f"a {self.type} ballot needs the member {wanted!r}")
        return self._encode_scores(body[wanted]) if wanted == "scores" else self._encode_choices(body[wanted])

    def to_choices(self, raw: bytes) -> dict[str, object]:
        """The body that encodes to these canonical bytes; the inverse of `encode`."""
        if self.type == "score":
            return {"scores": {self.option_ids[index]: score for index, score in self._scores(raw)}}
        return {"choices": [self.option_ids[index] for index in self._choices(raw)]}

    def parse_cell(self, text: str) -> dict[str, object]:
        """The body of a ballots.csv cell: `a`, `a+b` approval, `a>b` ranked, `a=3>b=2` scores, empty: blank.

        Raises:
            InvalidBallot: for a cell that is not in this form; `encode` checks whether the ballot is allowed.
        """
        if self.type == "score":
            return {"scores": _cell_scores(text)}
        separator = {"approval": "+", "ranked": ">"}.get(self.type)
        if text == "":
            return {"choices": []}
        return {"choices": text.split(separator) if separator else [text]}

    def _encode_choices(self, choices: object) -> bytes:
        if not isinstance(choices, (list, tuple)):
            raise InvalidBallot("malformed", f"'choices' is {_kind(choices)}; a list of option ids is needed")
        self._check_number(len(choices))
        indexes = [self._index_of(option) for option in choices]
        if len(set(indexes)) != len(indexes):
            raise InvalidBallot("duplicate-option", f"{self._repeated(indexes)} is named more than once")
        return _pack(indexes if self.type == "ranked" else sorted(indexes))

    def _encode_scores(self, scores: object) -> bytes:
        if not isinstance(scores, Mapping):
            raise InvalidBallot("malformed", f"'scores' is {_kind(scores)}; an object of id: score is needed")
        self._check_number(len(scores))
        pairs = sorted((self._index_of(option), score) for option, score in self._whole(scores))
        for index, score in pairs:
            self._check_score(index, score)
        return b"".join(struct.pack(">Hh", index, score) for index, score in pairs)

    @staticmethod
    def _whole(scores: Mapping[object, object]) -> Iterable[tuple[object, int]]:
        for option, score in scores.items():
            if not isinstance(score, int) or isinstance(score, bool):
                message = f"the score of {_shown(option)} is {_shown(score)}; a whole number is needed"
                raise InvalidBallot("not-an-integer", message)
            yield option, score

    def _index_of(self, option: object) -> int:
        if not isinstance(option, str):
            raise InvalidBallot("malformed", f"found {_kind(option)} as option; a text, its id, is needed")
        index: int | None = self._indexes.get(option)  # type: ignore[attr-defined]
        if index is None:
            known = ", ".join(self.option_ids[:10]) + (", ..." if len(self.option_ids) > 10 else "")
            raise InvalidBallot("unknown-option", f"found the option {_shown(option)}; allowed: {known}")
        return index

    # --- From canonical bytes

    def check(self, raw: bytes) -> None:
        """Raises InvalidBallot unless these bytes are canonical and allowed."""
        self._scores(raw) if self.type == "score" else self._choices(raw)

    def contributions(self, raw: bytes) -> Contributions:
        """The units that a ballot of weight one adds: 1 per option for single and approval, 1 for the first
        preference of ranked, the score for score; nothing for a blank.

        Raises:
            InvalidBallot: if the bytes are not canonical or not allowed.
        """
        if self.type == "score":
            return self._scores(raw)
        indexes = self._choices(raw)
        counted = indexes[:1] if self.type == "ranked" else indexes
        return tuple([(index, 1) for index in counted])

    def preferences(self, raw: bytes) -> tuple[int, ...]:
        """The option indexes that a ballot names: in order of preference if ranked, else ascending."""
        if self.type == "score":
            return tuple([index for index, _ in self._scores(raw)])
        return self._choices(raw)

    def _choices(self, raw: bytes) -> tuple[int, ...]:
        number, rest = divmod(len(raw), _INDEX)
        if rest:
            raise InvalidBallot("malformed", f"found {len(raw)} bytes; a {self.type} ballot has 2 a choice")
        self._check_number(number)
        indexes: tuple[int, ...] = struct.unpack(f">{number}H", raw)
        if indexes and max(indexes) >= len(self.option_ids):
            self._refuse_index(max(indexes))
        if self.type == "ranked":
            if len(set(indexes)) != number:
                raise InvalidBallot("duplicate-option", f"{self._repeated(indexes)} is named more than once")
        elif number > 1:
            self._check_ascending(indexes)
        return indexes

    def _scores(self, raw: bytes) -> Contributions:
        number, rest = divmod(len(raw), _PAIR)
        if rest:
            raise InvalidBallot("malformed", f"found {len(raw)} bytes; a score ballot has 4 a score")
        self._check_number(number)
        pairs: Contributions = tuple(struct.iter_unpack(">Hh", raw))
        self._check_ascending([index for index, _ in pairs])
        if pairs and pairs[-1][0] >= len(self.option_ids):
            self._refuse_index(pairs[-1][0])
        for index, score in pairs:
            self._check_score(index, score)
        return pairs

    # --- Rules

    def _check_number(self, number: int) -> None:
        if self.min <= number <= self.max:
            return
        allowed = str(self.min) if self.min == self.max else f"{self.min} to {self.max}"
        reason = "too-many" if number > self.max else "too-few"
        raise InvalidBallot(reason, f"the ballot names {number} options; allowed: {allowed}")

    def _check_score(self, index: int, score: int) -> None:
        low, high = self.scale or (0, 0)
        if not low <= score <= high:
            option = self.option_ids[index]
            message = f"the score of {option!r} is {_shown(score)}; allowed: {low} to {high}"
            raise InvalidBallot("out-of-scale", message)

    def _check_ascending(self, indexes: tuple[int, ...] | list[int]) -> None:
        if not all(map(lt, indexes, indexes[1:])):
            raise InvalidBallot("not-canonical", "the options are not in strictly ascending order")

    def _refuse_index(self, index: int) -> None:
        message = f"found the option index {index}; allowed: 0 to {len(self.option_ids) - 1}"
        raise InvalidBallot("unknown-option", message)

    def _repeated(self, indexes: tuple[int, ...] | list[int]) -> str:
        return repr(next(self.option_ids[index] for index in indexes if indexes.count(index) > 1))


def _pack(indexes: list[int]) -> bytes:
    return struct.pack(f">{len(indexes)}H", *indexes)


def _cell_scores(text: str) -> dict[str, int]:
    scores: dict[str, int] = {}
    for part in text.split(">") if text else ():
        option, _, score = part.partition("=")
        try:
            value = int(score)
        except ValueError:
            message = f"found {_shown(part)}; a score is written option=number"
            raise InvalidBallot("malformed", message) from None
        if option in scores:
            raise InvalidBallot("duplicate-option", f"{_shown(option)} is named more than once")
        scores[option] = value
    return scores


def _shown(value: object) -> str:
    """A foreign value as text for a message: never longer than a line, whatever a client sends."""
    if isinstance(value, (list, Mapping)):
        return _kind(value)
    if isinstance(value, int) and value.bit_length() > _SHOWN:
        return "a very large number"
    text = repr(value[: _SHOWN + 1] if isinstance(value, (str, bytes)) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def _kind(value: object) -> str:
    names = {str: "a text", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return "an object" if isinstance(value, Mapping) else names.get(type(value), "null or unreadable")
