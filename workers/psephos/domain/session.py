"""The session: what a `VotingSession` may say, as frozen models, and the one parser that reads it.

All readers of sessions (local stack, roles, operator, admission webhook) use this parser, so that they agree on
defaults and on what is refused. Pure: no I/O, no clock. The models, including their field descriptions, are also
the source of the CRD's schema.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from psephos.platform.durations import duration_pattern, parse_duration
from psephos.platform.errors import BAD_INPUT, PsephosError

API_VERSION = "psephos.dev/v1alpha1"
KIND = "VotingSession"
SOURCE_LIMIT = 4 * 1024 * 1024
"""Maximum bytes of a session's source; etcd itself takes at most 1.5 MiB."""

MAX_OPTIONS = 1000
MAX_COUNTERS = 4096
"""Options x (declared segments + other): keeps a ledger block's cumulative tallies below 64 KB."""

MIN_PARTITIONS, MAX_PARTITIONS = 4, 64
VOTES_PER_PARTITION = 4000
"""Votes per second for one partition: its ledger key takes 1,000 write units per second; this is far below."""

OTHER_SEGMENT = "other"
ID_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"
SEGMENT_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?$"
DURATION_UNITS = ("ms", "s", "m", "h")
DURATION_PATTERN = duration_pattern(DURATION_UNITS)
MIN_CLOSE_GRACE, MAX_CLOSE_GRACE = timedelta(seconds=1), timedelta(minutes=10)

Method = Literal["plurality", "approval", "irv", "borda", "sum", "mean"]
METHODS: Mapping[str, tuple[Method, ...]] = {
    "single": ("plurality",),
    "approval": ("approval",),
    "ranked": ("irv", "borda", "plurality"),
    "score": ("sum", "mean"),
}
"""The counting methods for each ballot type; the first is the default."""


@dataclass(frozen=True)
class Problem:
    """One problem of a session: `field` is its path in the YAML (empty: the whole document)."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class SessionError(PsephosError, ValueError):
    """A session that can't be used; `problems` has at least one entry, in the order of the document."""

    exit_code = BAD_INPUT

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


# --- Field types ---------------------------------------------------------------------------------

_RFC3339 = re.compile(r"^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,6})?([Zz]|[+-]\d\d:\d\d)$")


def _read_time(value: object) -> datetime:
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"found {_found(value)}: {error}") from None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    raise ValueError(f"found {_found(value)}; allowed: a time with its zone, such as 2026-11-23T20:00:00Z")


def _read_duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    found = parse_duration(value, DURATION_UNITS) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"found {_found(value)}; allowed: a duration such as 500ms, 10s, 2m or 1h")
    return found


def _write_duration(value: timedelta) -> str:
    milliseconds = value // timedelta(milliseconds=1)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


Time = Annotated[datetime, BeforeValidator(_read_time)]
Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(_write_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN}),
]
OptionId = Annotated[str, Field(pattern=ID_PATTERN)]
SegmentName = Annotated[str, Field(pattern=SEGMENT_PATTERN)]
ObjectName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
DataKey = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")]
Claim = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
Int16 = Annotated[int, Field(ge=-32768, le=32767)]
Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        alias_generator=to_camel,
        use_attribute_docstrings=True,
    )


# --- The models ----------------------------------------------------------------------------------


class Option(_Model):
    """Something that a voter can vote for."""

    id: OptionId
    """Stable name of the option in ballots and results."""
    label: Text = Field(default_factory=lambda data: data["id"])
    """What people read; the id by default."""


class Scale(_Model):
    """Allowed values of a score: integers from `min` to `max`, both included."""

    min: Int16
    """Lowest score."""
    max: Int16
    """Highest score."""


class Ballot(_Model):
    """What a ballot may say and how ballots are counted."""

    type: Literal["single", "approval", "ranked", "score"]
    """Kind of ballot: one option, several, an order of preference, or a score for each."""
    options: Annotated[tuple[Option, ...], Field(min_length=1, max_length=MAX_OPTIONS, strict=False)]
    """The options in declared order; the order settles ties under tieBreak declared."""
    min: int = Field(default=1, ge=0, le=MAX_OPTIONS)
    """Options that a ballot must name at least; 0 allows a blank ballot."""
    max: int = Field(
        default_factory=lambda data: 1 if data["type"] == "single" else len(data["options"]),
        ge=1,
        le=MAX_OPTIONS,
    )
    """Options that a ballot may name at most; 1 for single, otherwise all of them by default."""
    scale: Scale | None = None
    """Allowed scores; required for score ballots, and only there."""
    method: Method = Field(default_factory=lambda data: METHODS[data["type"]][0])
    """Counting method: single: plurality; approval: approval; ranked: irv (default), borda or plurality;
    score: sum (default) or mean."""
    elimination: Literal["single", "batch"] | None = Field(
        default_factory=lambda data: "single" if data["method"] == "irv" else None
    )
    """irv only: the lowest option goes out alone (single, the default), or all that can't catch up
    together (batch)."""
    stop: Literal["two", "majority"] | None = Field(
        default_factory=lambda data: "two" if data["method"] == "irv" else None
    )
    """irv only: count until two options remain (two, the default), or until one has more than half of
    the continuing votes (majority)."""
    tie_break: Literal["declared", "lot"] = "declared"
    """What settles a tie: the declared order of options, or a lot whose seed is committed at genesis."""


class SecretRef(_Model):
    """A key in a Kubernetes Secret."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key inside the Secret."""


class ConfigMapRef(_Model):
    """A key in a Kubernetes ConfigMap."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey = "roll"
    """Key inside the ConfigMap."""


class Tokens(_Model):
    """Which voter tokens (JWT) are taken."""

    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, max_length=4, strict=False)] = ("HS256",)
    """Pinned signature algorithms; HS256 can't be mixed with the others."""
    secret_ref: SecretRef | None = None
    """Secret with the HS256 key, or with a PEM public key. The local stack makes a key when it is absent."""
    jwks_url: Annotated[str, Field(max_length=2048)] | None = None
    """Where public keys are published, instead of secretRef; https, or http on loopback."""
    issuer: Annotated[str, Field(min_length=1, max_length=2048)]
    """Required value of the iss claim."""
    audience: Annotated[str, Field(min_length=1, max_length=2048)]
    """Required value of the aud claim."""
    weight_claim: Claim | None = None
    """Claim that holds the voter's weight: an integer or a decimal with at most six places."""
    segment_claim: Claim | None = None
    """Claim that holds the voter's segment."""


class Roll(_Model):
    """Where the electoral roll is: subjects, one a line, up to a million."""

    config_map_ref: ConfigMapRef | None = None
    """A ConfigMap that holds the roll."""
    url: Annotated[str, Field(max_length=2048)] | None = None
    """The roll as an object, s3://bucket/key, or a file on this machine, file://, instead of configMapRef."""


class Voters(_Model):
    """Who may vote, how often, and how votes are broken down."""

    eligibility: Literal["token", "roll", "open"] = "token"
    """token: a valid token; roll: and its subject is on the roll; open: anyone, one vote a browser."""
    tokens: Tokens | None = None
    """Voter tokens; required for token and roll."""
    segments: Annotated[tuple[SegmentName, ...], Field(max_length=MAX_COUNTERS, strict=False)] = ()
    """Declared segments that results are broken down by; any other value counts as other."""
    roll: Roll | None = None
    """The electoral roll; required for eligibility roll, and only there."""
    revote: Literal["first", "last"] = "first"
    """Which ballot of a voter counts: the first, or the last."""
    votes_per_voter: int = Field(default=1, ge=1, le=1000)
    """How many votes a voter has."""


class Results(_Model):
    """Who sees results when."""

    visibility: Literal["live", "afterClose"] = "live"
    """live: while voting goes on; afterClose: no figure by option before the final result."""


class Capacity(_Model):
    """What the session is built for."""

    votes_per_second: int = Field(default=1000, ge=1)
    """Peak of votes a second."""
    viewers: int = Field(default=1000, ge=1)
    """Peak of viewers at once."""
    partitions: int | None = Field(default=None, ge=1, le=MAX_PARTITIONS)
    """Partitions of the votes topic, fixed at genesis; derived from votesPerSecond when absent."""


class Recount(_Model):
    """Audits while the session is open; the final recount always takes place."""

    schedule: str = "*/15 * * * *"
    """When audits start: cron, five fields, UTC."""
    parallelism: int = Field(default=4, ge=1, le=MAX_PARTITIONS)
    """Pods that recount at once."""


class Exports(_Model):
    """Where the final result is written."""

    url: Annotated[str, Field(max_length=2048)]
    """A place in a bucket, s3://bucket/folder, or a folder on this machine, file://."""


class Spec(_Model):
    """What is voted on, when, by whom, and how it is counted."""

    title: Text | None = None
    """What people read; the name of the session by default."""
    opens_at: Time | None = None
    """When voting opens; at once when absent."""
    closes_at: Time | None = None
    """When voting closes; absent: when it is told to."""
    close_grace: Duration = Field(
        default=timedelta(seconds=10),
        json_schema_extra={"default": "10s"},  # pydantic would write ISO 8601's PT10S
    )
    """Time between closesAt and the close markers: 1s to 10m."""
    ballot: Ballot
    voters: Voters
    results: Results = Results()
    capacity: Capacity = Capacity()
    recount: Recount = Recount()
    exports: Exports | None = None
    deletion_policy: Literal["Retain", "Delete"] = "Retain"
    """What happens to topics, ledger rows, Redis keys and exports when the session is deleted."""


class Metadata(BaseModel):
    """What Kubernetes keeps about the object; other members are ignored."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    namespace: str | None = None
    uid: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Session(_Model):
    """One vote: the whole `VotingSession`, validated."""

    api_version: Literal["psephos.dev/v1alpha1"]
    kind: Literal["VotingSession"]
    metadata: Metadata
    spec: Spec

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def title(self) -> str:
        return self.spec.title or self.name

    @property
    def option_ids(self) -> tuple[str, ...]:
        """Option ids in declared order: the position is the option's index in canonical ballots."""
        return tuple(option.id for option in self.spec.ballot.options)

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels for people to read, by option id, in declared order."""
        return {option.id: option.label for option in self.spec.ballot.options}

    @property
    def segment_names(self) -> tuple[str, ...]:
        """Declared segments and, last, `other`; empty if the session has no segments at all."""
        tokens, segments = self.spec.voters.tokens, self.spec.voters.segments
        claimed = tokens is not None and tokens.segment_claim is not None
        return (*segments, OTHER_SEGMENT) if claimed or segments else ()

    @property
    def weighted(self) -> bool:
        tokens = self.spec.voters.tokens
        return tokens is not None and tokens.weight_claim is not None

    @property
    def needs_idempotency_key(self) -> bool:
        """True if a voter may have several records, so that a retry must be distinguished from a new vote."""
        return self.spec.voters.votes_per_voter > 1 or self.spec.voters.revote == "last"

    @property
    def roll_in_store(self) -> bool:
        """True if the electoral roll is an object in a store."""
        roll = self.spec.voters.roll
        return roll is not None and (roll.url or "").startswith(STORE_SCHEME)

    @property
    def exports_in_store(self) -> bool:
        """True if the final result is to be written to an object store."""
        return self.spec.exports is not None and self.spec.exports.url.startswith(STORE_SCHEME)

    @property
    def partitions(self) -> int:
        return partitions_for(self.spec.capacity)


# --- What follows from a session -----------------------------------------------------------------


def partitions_for(capacity: Capacity) -> int:
    """Partitions of the votes topic: the given number, else one per 4,000 votes per second, 4 to 64."""
    if capacity.partitions is not None:
        return capacity.partitions
    wanted = -(-capacity.votes_per_second // VOTES_PER_PARTITION)
    return min(max(wanted, MIN_PARTITIONS), MAX_PARTITIONS)


def rules_document(session: Session) -> dict[str, Any]:
    """All that the counting of records depends on, as plain JSON types; titles and labels are not included."""
    ballot, voters = session.spec.ballot, session.spec.voters
    return {
        "options": list(session.option_ids),
        "type": ballot.type,
        "min": ballot.min,
        "max": ballot.max,
        "scale": None if ballot.scale is None else [ballot.scale.min, ballot.scale.max],
        "method": ballot.method,
        "elimination": ballot.elimination,
        "stop": ballot.stop,
        "tieBreak": ballot.tie_break,
        "revote": voters.revote,
        "votesPerVoter": voters.votes_per_voter,
        "segments": list(session.segment_names),
        "weighted": session.weighted,
    }


def rules_hash(session: Session) -> bytes:
    """SHA-256 of the rules' canonical JSON (sorted keys, no spaces): 32 bytes, fixed at genesis."""
    document = json.dumps(rules_document(session), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode()).digest()


# --- Parsing -------------------------------------------------------------------------------------


def parse_session(source: str | bytes | Mapping[str, Any]) -> Session:
    """Reads a session from YAML or JSON text, or from an object that is already decoded.

    Raises:
        SessionError: with every problem of the first stage that found one: reading the text, the individual
            fields, the fields together.
    """
    try:
        return _validated(source if isinstance(source, Mapping) else _read_yaml(source))
    except RecursionError:
        raise SessionError([Problem("", "nested too deeply; a session has a few levels only")]) from None


def _validated(document: Mapping[str, Any]) -> Session:
    members = {key: value for key, value in document.items() if key != "status"}
    try:
        session = Session.model_validate(_without_nulls(members))
    except ValidationError as error:
        raise SessionError(_problems_of_fields(error)) from None
    problems = validate(session)
    if problems:
        raise SessionError(problems)
    return session


def _without_nulls(value: object) -> object:
    """Drops members that are null, as the Kubernetes API server does."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    if isinstance(value, (list, tuple)):
        return [_without_nulls(member) for member in value]
    return value


# --- YAML ----------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Loads YAML 1.2's plain scalars: `no` is Norway and not false, `010` is a string, times stay strings."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq")}
for _name, _pattern, _first in (
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(0|[1-9][0-9]{0,18})$", "-+0123456789"),
    ("float", r"^[-+]?[0-9]{1,18}\.[0-9]{1,18}$", "-+0123456789"),
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), list(_first))


def _read_yaml(source: str | bytes) -> Mapping[str, Any]:
    if len(source) > SOURCE_LIMIT:
        raise _unreadable(f"found {len(source)} bytes; allowed: at most {SOURCE_LIMIT}")
    try:
        text = source.decode("utf-8-sig") if isinstance(source, bytes) else source
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise _unreadable(f"found {_node_kind(node)}; allowed: a mapping with apiVersion, kind, ...")
        _check_nodes(node)
        document: dict[str, Any] = loader.construct_document(node)
        return document
    except yaml.MarkedYAMLError as error:
        raise _unreadable(f"broken YAML{_place(error.problem_mark)}: {error.problem}") from None
    except UnicodeDecodeError as error:
        raise _unreadable(f"byte {error.start} is not UTF-8") from None
    except (yaml.YAMLError, ValueError, KeyError) as error:
        if isinstance(error, SessionError):
            raise
        raise _unreadable(f"broken YAML: {' '.join(str(error).split())}") from None


def _unreadable(message: str) -> SessionError:
    return SessionError([Problem("", message)])


def _place(mark: yaml.Mark | None) -> str:
    return "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"


def _node_kind(node: yaml.Node | None) -> str:
    if node is None:
        return "an empty document"
    return "a list" if isinstance(node, yaml.SequenceNode) else "a single value"


def _check_nodes(root: yaml.MappingNode) -> None:
    """Refuses what the constructor would silently accept: repeated keys, keys other than strings, tags.

    Aliases are refused as well: a few lines of them expand into gigabytes.
    """
    seen: set[int] = set()
    waiting: list[yaml.Node] = [root]
    while waiting:
        node = waiting.pop()
        where = _place(node.start_mark)
        if id(node) in seen:
            raise _unreadable(f"found an alias of the value{where}; write the value out")
        seen.add(id(node))
        if node.tag not in _TAGS:
            raise _unreadable(f"found the tag {node.tag}{where}; allowed: plain values")
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            waiting += [value for _, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _check_keys(mapping: yaml.MappingNode) -> None:
    keys: set[str] = set()
    for key, _ in mapping.value:
        where = _place(key.start_mark)
        if key.tag != _TAG + "str" or not isinstance(key, yaml.ScalarNode):
            raise _unreadable(f"found a key{where} that is no text; put it in quotes")
        if key.value in keys:
            raise _unreadable(f"found the key {key.value!r} a second time{where}; keep one")
        keys.add(key.value)


# --- Problems of single fields -------------------------------------------------------------------

_SHAPES = {
    "int": "a whole number",
    "string": "a text (put it in quotes if it looks like a number)",
    "bool": "true or false",
    "tuple": "a list",
    "model": "a mapping",
    "dict": "a mapping",
}
_BOUNDS = {"greater_than_equal": ("at least", "ge"), "less_than_equal": ("at most", "le")}
_LENGTHS = {
    "too_short": ("at least", "min_length", "entries"),
    "too_long": ("at most", "max_length", "entries"),
    "string_too_short": ("at least", "min_length", "characters"),
    "string_too_long": ("at most", "max_length", "characters"),
}
_PATTERNS = {
    ID_PATTERN: "1 to 64 of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends",
    SEGMENT_PATTERN: "1 to 64 of A-Z, a-z, 0-9, '.', '_', '-', with a letter or digit at both ends",
    NAME_PATTERN: "1 to 50 of a-z, 0-9, '-', with a letter or digit at both ends",
}


def _problems_of_fields(error: ValidationError) -> Iterator[Problem]:
    for details in error.errors(include_url=False):
        if not _is_echo(details):
            yield Problem(_path(details["loc"]), _message(details))


def _is_echo(details: ErrorDetails) -> bool:
    """Returns whether pydantic only repeats another field's problem: a default derived from that field, or a list
    that would be long enough if its entries were right."""
    if details["type"] == "too_short":
        return bool(len(details["input"]) >= details["ctx"]["min_length"])
    return details["type"] == "default_factory_not_called"


def _path(location: tuple[int | str, ...]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return path.removeprefix(".")


def _message(details: ErrorDetails) -> str:
    kind, context, found = details["type"], details.get("ctx", {}), _found(details["input"])
    if kind == "extra_forbidden":
        return _unknown_field(details["loc"])
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"found {found}; allowed: {expected}"
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"found {found}; allowed: {_PATTERNS.get(pattern, pattern)}"
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"found {found}; allowed: {word} {context[key]}"
    if kind in _LENGTHS:
        word, key, unit = _LENGTHS[kind]
        length = len(details["input"])
        return f"found {length} {unit}; allowed: {word} {context[key]}"
    shape = _SHAPES.get(kind.split("_")[0])
    return f"found {found}; allowed: {shape}" if shape else f"found {found}: {details['msg']}"


def _found(value: object) -> str:
    """A value as a message shows it: short, or only its kind if it is large."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, (str, int, float)) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _unknown_field(location: tuple[int | str, ...]) -> str:
    known = _known_fields(location[:-1])
    name = str(location[-1])
    close = difflib.get_close_matches(to_camel(name.lower()), [field.lower() for field in known], n=1)
    close = close or difflib.get_close_matches(name.lower(), [field.lower() for field in known], n=1)
    hint = next((f"did you mean {field}? " for field in known if close and field.lower() == close[0]), "")
    return f"unknown field; {hint}allowed: {', '.join(known)}"


def _known_fields(location: tuple[int | str, ...]) -> list[str]:
    """The names that the mapping at a location may have, found by walking down the models."""
    model: Any = Session
    for part in location:
        annotation = (
            model
            if isinstance(part, int)
            else next(
                field.annotation for name, field in model.model_fields.items() if (field.alias or name) == part
            )
        )
        model = _model_in(annotation)
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> Any:
    """The model inside `Model | None`, `tuple[Model, ...]` or `Annotated[...]`."""
    if get_origin(annotation) in (Union, UnionType, tuple, Annotated):
        return _model_in(next(part for part in get_args(annotation) if part is not type(None)))
    return annotation


# --- Problems of fields together -----------------------------------------------------------------


def validate(session: Session) -> tuple[Problem, ...]:
    """The problems of fields in combination; empty if the session is sound."""
    spec = session.spec
    return (
        *_check_times(spec),
        *_check_options(spec.ballot),
        *_check_choices(spec.ballot),
        *_check_scale(spec.ballot),
        *_check_method(spec.ballot),
        *_check_eligibility(spec.voters),
        *_check_tokens(spec.voters.tokens),
        *_check_roll(spec.voters.roll),
        *_check_revote(spec.voters),
        *_check_segments(session),
        *_check_recount(spec.recount),
        *_check_exports(spec.exports),
    )


def _check_times(spec: Spec) -> Iterator[Problem]:
    if spec.opens_at and spec.closes_at and spec.closes_at <= spec.opens_at:
        closes, opens = spec.closes_at.isoformat(), spec.opens_at.isoformat()
        yield Problem("spec.closesAt", f"found {closes}; allowed: after opensAt, which is {opens}")
    if not MIN_CLOSE_GRACE <= spec.close_grace <= MAX_CLOSE_GRACE:
        yield Problem("spec.closeGrace", f"found {_write_duration(spec.close_grace)}; allowed: 1s to 10m")


def _repeated(values: Iterable[str]) -> Iterator[tuple[int, str]]:
    seen: set[str] = set()
    for position, value in enumerate(values):
        if value in seen:
            yield position, value
        seen.add(value)


def _check_options(ballot: Ballot) -> Iterator[Problem]:
    for position, option in _repeated(option.id for option in ballot.options):
        field = f"spec.ballot.options[{position}].id"
        yield Problem(field, f"found {option!r} a second time; allowed: ids that are unique")


def _check_choices(ballot: Ballot) -> Iterator[Problem]:
    options = len(ballot.options)
    if ballot.max > options:
        yield Problem("spec.ballot.max", f"found {ballot.max}; allowed: at most {options}, one an option")
    if ballot.type == "single" and ballot.max > 1:
        yield Problem("spec.ballot.max", f"found {ballot.max}; allowed: 1 for type single")
    if ballot.min > ballot.max:
        yield Problem("spec.ballot.min", f"found {ballot.min}; allowed: at most max, which is {ballot.max}")


def _check_scale(ballot: Ballot) -> Iterator[Problem]:
    if ballot.type == "score" and ballot.scale is None:
        yield Problem("spec.ballot.scale", "is required for type score, such as {min: 0, max: 5}")
    if ballot.type != "score" and ballot.scale is not None:
        yield Problem("spec.ballot.scale", f"allowed for type score only; the type is {ballot.type}")
    if ballot.scale is not None and ballot.scale.min >= ballot.scale.max:
        low, high = ballot.scale.min, ballot.scale.max
        yield Problem("spec.ballot.scale.max", f"found {high}; allowed: above min, which is {low}")


def _check_method(ballot: Ballot) -> Iterator[Problem]:
    fitting = METHODS[ballot.type]
    if ballot.method not in fitting:
        allowed = f"{', '.join(fitting)} for type {ballot.type}"
        yield Problem("spec.ballot.method", f"found {ballot.method!r}; allowed: {allowed}")
    for field, value in (("elimination", ballot.elimination), ("stop", ballot.stop)):
        if value is not None and ballot.method != "irv":
            message = f"allowed for method irv only; the method is {ballot.method}"
            yield Problem(f"spec.ballot.{field}", message)


def _check_eligibility(voters: Voters) -> Iterator[Problem]:
    kind = voters.eligibility
    if kind == "open" and voters.tokens is not None:
        yield Problem("spec.voters.tokens", "allowed for eligibility token and roll only; found open")
    if kind != "open" and voters.tokens is None:
        yield Problem("spec.voters.tokens", f"is required for eligibility {kind}")
    if kind == "roll" and voters.roll is None:
        yield Problem("spec.voters.roll", "is required for eligibility roll")
    if kind != "roll" and voters.roll is not None:
        yield Problem("spec.voters.roll", f"allowed for eligibility roll only; found {kind}")


_JWKS_URL = re.compile(r"^(https://[^\s/]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/|$))")
STORE_SCHEME = "s3://"
_FOLDER_URL = re.compile(r"(s3://[A-Za-z0-9._-]+(/\S*)?|file:///.*)")
_FILE_URL = re.compile(r"(s3://[A-Za-z0-9._-]+/\S*[^\s/]|file:///.*)")


def _check_tokens(tokens: Tokens | None) -> Iterator[Problem]:
    if tokens is None:
        return
    field = "spec.voters.tokens"
    for position, algorithm in _repeated(tokens.algorithms):
        yield Problem(f"{field}.algorithms[{position}]", f"found {algorithm!r} a second time; keep one")
    if "HS256" in tokens.algorithms and len(set(tokens.algorithms)) > 1:
        # A public key must never be taken for an HMAC secret.
        yield Problem(f"{field}.algorithms", "allowed: HS256 alone, or the others without it")
    if tokens.secret_ref is not None and tokens.jwks_url is not None:
        yield Problem(f"{field}.jwksUrl", "allowed: secretRef or jwksUrl, not both")
    if tokens.jwks_url is not None and "HS256" in tokens.algorithms:
        yield Problem(f"{field}.jwksUrl", "allowed for RS256, ES256 and EdDSA only; HS256 needs secretRef")
    if tokens.jwks_url is not None and not _JWKS_URL.match(tokens.jwks_url):
        found = _found(tokens.jwks_url)
        yield Problem(f"{field}.jwksUrl", f"found {found}; allowed: an https:// URL")


def _check_roll(roll: Roll | None) -> Iterator[Problem]:
    if roll is None:
        return
    if (roll.config_map_ref is None) == (roll.url is None):
        yield Problem("spec.voters.roll", "allowed: exactly one of configMapRef and url")
    if roll.url is not None and not _FILE_URL.fullmatch(roll.url):
        found = _found(roll.url)
        yield Problem("spec.voters.roll.url", f"found {found}; allowed: s3://bucket/key or a file:// URL")


def _check_revote(voters: Voters) -> Iterator[Problem]:
    if voters.revote == "last" and voters.votes_per_voter != 1:
        found = voters.votes_per_voter
        yield Problem("spec.voters.votesPerVoter", f"found {found}; allowed: 1 with revote last")


def _check_segments(session: Session) -> Iterator[Problem]:
    segments = session.spec.voters.segments
    for position, segment in _repeated(segments):
        field = f"spec.voters.segments[{position}]"
        yield Problem(field, f"found {segment!r} a second time; allowed: names that are unique")
    if OTHER_SEGMENT in segments:
        field = f"spec.voters.segments[{segments.index(OTHER_SEGMENT)}]"
        yield Problem(field, "found 'other', which is reserved for all values that are not declared")
    options = len(session.option_ids)
    if options * (len(segments) + 1) > MAX_COUNTERS:
        most = MAX_COUNTERS // options - 1
        message = f"found {len(segments)} segments; allowed: at most {most} with {options} options"
        yield Problem("spec.voters.segments", f"{message} (options x (segments + 1) <= {MAX_COUNTERS})")


_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_CRON_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)


def _check_recount(recount: Recount) -> Iterator[Problem]:
    field, parts = "spec.recount.schedule", recount.schedule.split()
    if len(parts) != len(_CRON_FIELDS):
        found = _found(recount.schedule)
        yield Problem(field, f"found {found}; allowed: five cron fields, such as '*/15 * * * *'")
        return
    for part, (name, low, high, names) in zip(parts, _CRON_FIELDS, strict=True):
        values = {word: low + position for position, word in enumerate(names)}
        if not all(_is_cron_range(item, low, high, values) for item in part.split(",")):
            allowed = f"{low} to {high}, ranges a-b, steps */n, lists a,b"
            yield Problem(field, f"found {part!r} as {name}; allowed: {allowed}")


_CRON_ITEM = re.compile(r"(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?")


def _is_cron_range(item: str, low: int, high: int, names: Mapping[str, int]) -> bool:
    match = _CRON_ITEM.fullmatch(item.lower())
    if match is None or match[3] in ("0", "00"):
        return False
    bounds = [names.get(word, int(word) if word.isdigit() else -1) for word in match.groups()[:2] if word]
    return all(low <= bound <= high for bound in bounds) and bounds == sorted(bounds)


def _check_exports(exports: Exports | None) -> Iterator[Problem]:
    if exports is not None and not _FOLDER_URL.fullmatch(exports.url):
        found = _found(exports.url)
        yield Problem("spec.exports.url", f"found {found}; allowed: s3://bucket/folder or a file:// URL")
