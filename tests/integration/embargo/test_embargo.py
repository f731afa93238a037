"""Under embargo no figure by option leaves the roles before the final result, wherever one looks.

The figures can't be mistaken: every vote has a weight of its option's own, so that a tally has twelve digits.
The same reading of a session that shows its results live finds them: what it does not find, nobody could.
"""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from redis import Redis
from tests.integration.elections.playing import Command, psephos
from tests.integration.embargo.figures import Figures
from tests.integration.embargo.places import Places, Reader
from tests.waiting import PATIENCE_S, wait_until

from psephos.adapters.dynamodb import Ledger
from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import LogAdmin
from psephos.client.http import request
from psephos.client.tokens import signer, token_template
from psephos.control.closing_steps import fix_closing_time
from psephos.domain.session import parse_session
from psephos.formats.blocks import Block, decode_block, encode_block
from psephos.formats.control import Phase
from psephos.http.problems import TYPE_BASE

PARTITIONS = 2
SEGMENTS = ("no", "se")
WEIGHTS = {"zq-ada": "900001.000017", "zq-bob": "700001.000013", "zq-cyd": "400009.000011"}
VOTERS = {"zq-ada": 137, "zq-bob": 89, "zq-cyd": 41}
TOTALS = {option: float(VOTERS[option] * Decimal(weight)) for option, weight in WEIGHTS.items()}
LABELS = {"zq-ada": "Ada Quill", "zq-bob": "Bob Quartz", "zq-cyd": "Cyd Quince"}
SESSION = f"""
apiVersion: psephos.dev/v1alpha1
kind: VotingSession
metadata: {{name: sealed}}
spec:
  title: A sealed vote
  ballot:
    type: single
    options: {json.dumps([{"id": option, "label": label} for option, label in LABELS.items()])}
  voters:
    segments: {json.dumps(SEGMENTS)}
    tokens: {{issuer: "https://id.example", audience: sealed, weightClaim: weight, segmentClaim: country}}
  capacity: {{partitions: {PARTITIONS}}}
  closeGrace: 1s
  results: {{visibility: VISIBILITY}}
"""
DOCS = Path(__file__).parents[3] / "docs" / "embargo.md"
SHOWN = {  # where a session that is live shows figures by option while it is open
    "Redis: every key",
    "Redis: every command",
    "frames by WebSocket",
    "frames by SSE",
    "frames by GET",
    "results page",
    "answers of the gateway",
    "commands",
    "ledger items",
    "reports of audits",
}
NEVER = {  # where nobody's figures stand, live or not: that they were read shows in these words
    "voting page": b"Ada Quill",
    "answers of ingest": b'"receipt"',
    "logs of all processes": b'"block"',
    "output of `psephos dev up`": b"Ctrl-C",
    "metrics and probes": b"psephos_tally_records_total",
    "control topic": b'"phase":"Open"',
}

pytestmark = pytest.mark.timeout(600)  # a whole session with a browser beside it, on a crowded machine


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[[str], Command]]:
    """`psephos dev up` of the session with this visibility."""
    commands: list[Command] = []

    def start(visibility: str) -> Command:
        session = tmp_path / f"{visibility}.yaml"
        session.write_text(SESSION.replace("VISIBILITY", visibility))
        ports = ("--port", "0", "--ingest-port", "0", "--admin-port", "0")
        commands.append(Command(tmp_path / visibility, "up", session, *ports))
        commands[-1].wait_for_words("Ctrl-C", 180)
        return commands[-1]

    yield start
    for command in commands:
        command.stop()


@pytest.mark.timeout(600)  # three audits and two recounts, in processes of their own
def test_under_embargo_nothing_tells_a_figure_by_option_before_the_final_result(
    up: Callable[[str], Command],
) -> None:
    stack = up("afterClose")
    with closing(Reader(stack)) as reader:
        for turn in range(2):  # chains of more than one block
            reader.receipts += vote(stack, turn)
            figures = counted(stack)
        code, said = reader.audit()
        assert code == 0
        places = reader.read() | said
        require_none(figures, places, "while open")
        require_documented(places)

        with tampered(stack):
            code, said = reader.audit()
            assert code == 3
            assert b"accepted-differs" in said["reports of audits"]
            require_none(figures, reader.read_stored() | said, "after an audit that found a difference")
            fix_closing_time(stack.settings, Ledger.of(stack.settings))
            frame = reader.wait_shown(Phase.DISPUTED)
            assert (frame["totals"], frame["segments"], frame["outcome"]) == (None, None, None)
            places = reader.read()
            assert b"disputed#final" in places["ledger items"]
            assert b'"Disputed"' in places["exports and other files"]
            require_none(figures, places, "while disputed")

        repaired = psephos("recount", "--name", "final-2", env=stack.environment)
        assert repaired.returncode == 0, repaired.stderr
        frame = reader.wait_shown(Phase.FINAL)
        assert frame["totals"] == TOTALS
        code, said = reader.audit()
        assert code == 0
        require_all(figures, reader.read() | said, {*SHOWN, "exports and other files"})


@pytest.mark.long
def test_the_same_reading_finds_the_figures_of_a_session_that_shows_them(up: Callable[[str], Command]) -> None:
    stack = up("live")
    with closing(Reader(stack)) as reader:
        reader.receipts = vote(stack, 0) + vote(stack, 1)
        figures = counted(stack)
        wait_until(lambda: totals_shown(reader) == TOTALS, "the gateway shows all votes")
        _, said = reader.audit()
        require_all(figures, reader.read() | said, SHOWN)
        plant(stack)
        planted = reader.read_stored()
        for place in ("logs of all processes", "exports and other files"):
            assert figures.found_in(planted[place]), place
        keys = planted["Redis: every key"].splitlines()
        for kind in KINDS_OF_KEYS:
            assert any(key.startswith(kind.encode()) and figures.found_in(key) for key in keys), kind


# --- Voting


def vote(stack: Command, turn: int) -> bytes:
    """Every voter votes in one of two turns; ingest's answers, a line each."""
    return asyncio.run(_vote(stack, turn))


async def _vote(stack: Command, turn: int) -> bytes:
    session = parse_session((stack.folder / "session.yaml").read_bytes())
    sign, template = (
        signer("HS256", (stack.folder / "keys" / "tokens-hs256").read_bytes()),
        token_template(session),
    )
    url, answers = f"http://127.0.0.1:{stack.settings.ingest_port}/v1/sessions/sealed/votes", []
    async with aiohttp.ClientSession() as client:
        for option, voters in VOTERS.items():
            for number in range(turn, voters, 2):
                weight, segment = Decimal(WEIGHTS[option]), SEGMENTS[number % len(SEGMENTS)]
                token = sign(template.claims(f"{option}-{number}", int(time.time()), weight, segment))
                key = f"{option}-{number}-{turn}".ljust(16, "-")
                headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": key}
                answers.append(await _acknowledged(client, url, {"choices": [option]}, headers))
    return b"\n".join(answers) + b"\n"


async def _acknowledged(
    client: aiohttp.ClientSession, url: str, ballot: dict[str, Any], headers: dict[str, str]
) -> bytes:
    """Sends a vote as voters do: after `unconfirmed`, when a broker took long, the same request again."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        async with client.post(url, json=ballot, headers=headers) as answer:
            read = await answer.read()
            if answer.status == 202:
                return read
            assert (answer.status, json.loads(read)["type"]) == (503, f"{TYPE_BASE}unconfirmed"), read
            assert time.monotonic() < deadline, read
        await asyncio.sleep(0.5)


def counted(stack: Command) -> Figures:
    """Waits until the ledger has counted what is in the log; every tally that it ever held."""
    ledger, log = Ledger.of(stack.settings), LogAdmin(stack.settings)
    ends = log.end_offsets(PARTITIONS)

    def blocks() -> list[list[Block]] | None:
        chains = [[decode_block(stored.payload) for stored in ledger.blocks(part)] for part in range(PARTITIONS)]
        done = [chain[-1].end if chain else 0 for chain in chains] == ends
        return chains if done else None

    chains = wait_until(blocks, "all votes are counted")
    assert chains is not None
    states = [block.state.tallies for chain in chains for block in chain]
    states.append(tuple(map(sum, zip(*(chain[-1].state.tallies for chain in chains), strict=True))))
    width = len(SEGMENTS) + 1  # and "other"
    tallies = [cell for state in states for cell in state]
    tallies += [sum(state[at : at + width]) for state in states for at in range(0, len(state), width)]
    sums = [sum(states[-1][at : at + width]) for at in range(0, len(states[-1]), width)]
    counts: dict[tuple[str, ...], int] = {(option, LABELS[option]): voters for option, voters in VOTERS.items()}
    return Figures(tallies, counts, [100 * each / sum(sums) for each in sums])


def totals_shown(reader: Reader) -> Any:
    return request(f"{reader.url}/results").body["totals"]


# --- What is asked of the places


def require_none(figures: Figures, places: Places, when: str) -> None:
    print(f"\n{when}: {len(places)} places, {sum(map(len, places.values())):,} bytes")
    for place, holds in places.items():
        found = figures.found_in(holds)
        print(f"  {place}: {len(holds):,} bytes, {len(found)} figures")
        assert holds, f"nothing was read at {place}"
        assert not found, f"{when}, {place} tells {found[:3]}"
    for place in NEVER.keys() & places.keys():
        assert NEVER[place] in places[place], f"{place} was not read: {places[place][:200]!r}"


def require_all(figures: Figures, places: Places, shown: set[str]) -> None:
    """Figures stand in each of `shown`; elsewhere they never do."""
    found = {place: len(figures.found_in(holds)) for place, holds in places.items()}
    print("\nfigures found:", found)
    assert {place for place, number in found.items() if number} == shown


def require_documented(places: Places) -> None:
    table = DOCS.read_text()
    assert [place for place in places if f"| {place} |" not in table] == []


# --- Doing harm


@contextmanager
def tampered(stack: Command) -> Iterator[None]:
    """The first vote of partition 0 is another one in the ledger, behind the back of every conditional write."""
    ledger, client, table = (
        Ledger.of(stack.settings),
        dynamodb_client(stack.settings),
        stack.settings.dynamodb_table,
    )
    base, payload = next(ledger.blocks(0))
    block = decode_block(payload)
    first, *others = block.accepted
    changed = first._replace(ballot=b"\x00\x02" * (first.ballot != b"\x00\x02"))
    block = block._replace(accepted=[changed, *others])
    key: Any = {"pk": {"S": f"{stack.settings.session_uid}#0"}, "sk": {"N": str(base)}}
    client.put_item(TableName=table, Item={**key, "b": {"B": encode_block(block)}})
    yield
    client.put_item(TableName=table, Item={**key, "b": {"B": payload}})


KINDS_OF_KEYS = ("a-string", "a-hash", "a-list", "a-set", "a-zset", "a-stream")


def plant(stack: Command) -> None:
    """A figure in a log, in a file, and in every kind of key that Redis has."""
    figure = str(TOTALS["zq-ada"])
    with (stack.folder / "logs" / "gateway.log").open("a") as log:
        log.write(json.dumps({"event": "planted", "sum": figure}) + "\n")
    (stack.folder / "data" / "exports").mkdir(parents=True, exist_ok=True)
    (stack.folder / "data" / "exports" / "planted.csv").write_text(f"zq-ada,{figure}\n")
    redis = Redis.from_url(stack.settings.redis_url)
    redis.set("a-string", figure)
    redis.hset("a-hash", "ada", figure)
    redis.rpush("a-list", figure)
    redis.sadd("a-set", figure)
    redis.zadd("a-zset", {"ada": float(figure)})
    redis.xadd("a-stream", {"ada": figure})
