"""Every place that somebody without access to log and ledger may read, read whole: `places` of docs/embargo.md.

A topic, ledger item, or file of the stack that is in neither of its two tables fails the reading: who adds a place
has to say there which it is.
"""

import asyncio
import codecs
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from playwright.sync_api import Page
from redis import Redis
from tests.integration.browsing import WITHIN_MS, chromium
from tests.integration.elections.playing import Command, psephos
from tests.integration.readside.watching import Events, Socket
from tests.waiting import PATIENCE_S

from psephos.adapters.dynamodb.ledger import dynamodb_client
from psephos.adapters.kafka import client_config, consumer_config, control_topic, tallies_topic, votes_topic
from psephos.client.http import NoAnswer, request
from psephos.domain.session import parse_session
from psephos.formats.control import Phase
from psephos.roles.gateway.openapi import ASYNCAPI_PATH, DESCRIPTION_PATH
from psephos.roles.serve import layout, own_admin_port

Places = dict[str, bytes]
INTERNAL_TOPICS = {"__consumer_offsets", "__transaction_state"}
INTERNAL_ITEMS = ("verdict#final", "patterns#")
PUBLIC_ITEMS = ("genesis", "closing", "sealed", "verdict#audit-", "disputed#", "final")
INTERNAL_FILES = ("kafka", "dynamodb", "redis", "keys", "data/tally-", "data/roll", "journal.jsonl")
PUBLIC_FILES = ("logs", "data/exports", "data/commands", "env", "session.yaml", "uid", "pids.json", "lock")


class Witness:
    """Hears everything that is sent from its start on: Redis' commands, frames by WebSocket and SSE, `--watch`."""

    def __init__(self, command: Command, url: str) -> None:
        self._url = url
        self._commands = bytearray()
        self._watchers: tuple[Socket, Events] | None = None
        address = urlsplit(command.settings.redis_url)
        self._redis = socket.create_connection((address.hostname, address.port))
        self._stopping = threading.Event()
        self._watched = command.folder.parent / f"{command.folder.name}-watched.jsonl"
        self._threads = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=lambda: asyncio.run(self._watch()), daemon=True),
            threading.Thread(target=self._poll, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def read(self) -> Places:
        """What was heard so far."""
        assert all(thread.is_alive() for thread in self._threads), "a witness has left"
        ws, sse = self._watchers or (None, None)
        return {
            "Redis: every command": codecs.escape_decode(bytes(self._commands))[0],
            "frames by WebSocket": _lines(ws.frames if ws else ()),
            "frames by SSE": _lines(sse.frames if sse else ()),
            "frames by GET": self._watched.read_bytes() if self._watched.exists() else b"",
        }

    def stop(self) -> None:
        self._stopping.set()
        self._redis.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(20)

    def _listen(self) -> None:
        """NB: a client library's MONITOR takes the replies apart, and loses its place in them at a time-out."""
        self._redis.sendall(b"MONITOR\r\n")
        while heard := self._redis.recv(1 << 16):
            self._commands += heard

    async def _watch(self) -> None:
        async with Socket(self._url.replace("http", "ws") + "/live") as ws, Events(self._url + "/events") as sse:
            self._watchers = ws, sse
            await asyncio.to_thread(self._stopping.wait)

    def _poll(self) -> None:
        """Every answer of GET that differs from the one before."""
        tag = ""
        with self._watched.open("ab", buffering=0) as watched:
            while not self._stopping.wait(0.1):
                try:
                    answer = request(f"{self._url}/results")
                except NoAnswer:  # the gateway has ended, or takes long
                    continue
                if answer.etag != tag:
                    tag = answer.etag or ""
                    watched.write(json.dumps(answer.body).encode() + b"\n")


class Reader:
    """Reads all places of a stack that runs (`psephos dev up`)."""

    def __init__(self, command: Command) -> None:
        """`receipts`, to be added to: what ingest answered, a 202 a line."""
        self.command, self.settings, self.receipts = command, command.settings, b""
        self.session = parse_session((command.folder / "session.yaml").read_bytes())
        name = self.session.name
        self.gateway = f"http://127.0.0.1:{self.settings.gateway_port}"
        self.url = f"{self.gateway}/v1/sessions/{name}"
        self.witness = Witness(command, self.url)

    def read(self) -> Places:
        """Place by name, all of its bytes."""
        return {**self.read_stored(), **self._pages(), "commands": b"\n".join(self._commands())}

    def read_stored(self) -> Places:
        """All but what a browser and commands show of it, which takes longer."""
        return {
            "Redis: every key": b"\n".join(self._redis()),
            **self.witness.read(),
            "answers of the gateway": b"\n".join(self._answers()),
            "answers of ingest": self.receipts,
            "logs of all processes": b"\n".join(path.read_bytes() for path in self._files("logs")),
            "output of `psephos dev up`": self.command.said.read_bytes(),
            "metrics and probes": b"\n".join(self._admin()),
            "exports and other files": b"\n".join(path.read_bytes() for path in self._files(*PUBLIC_FILES[1:])),
            "ledger items": b"\n".join(self._items()),
            "control topic": b"\n".join(self._control()),
        }

    def audit(self) -> tuple[int, Places]:
        """One more audit, by hand, both of its outputs: exit code, and what it says."""
        runs = [psephos("recount", "--audit", *form, env=self.command.environment) for form in ((), ("--json",))]
        said = b"".join((run.stdout + run.stderr).encode() for run in runs)
        return runs[0].returncode, {"reports of audits": said}

    def close(self) -> None:
        self.witness.stop()

    # --- Redis

    def _redis(self) -> Iterator[bytes]:
        client = Redis.from_url(self.settings.redis_url)
        for key in client.scan_iter():
            yield key + b" " + b" ".join(_flat(_value(client, key)))

    # --- HTTP

    def _answers(self) -> Iterator[bytes]:
        receipts = [json.loads(line)["receipt"] for line in self.receipts.splitlines()]
        paths = [f"/v1/sessions/{self.session.name}{path}" for path in ("", "/results", "/publication")]
        paths += [f"/v1/sessions/{self.session.name}/receipts/{receipt}" for receipt in receipts[:20]]
        paths += [DESCRIPTION_PATH, ASYNCAPI_PATH]
        return iter(asyncio.run(_bodies([self.gateway + path for path in paths])))

    def _admin(self) -> Iterator[bytes]:
        ports = [port for role in layout(self.settings) for port in role.admin_ports]
        ports.append(own_admin_port(self.settings))
        urls = [f"http://127.0.0.1:{port}{path}" for port in ports for path in ("/metrics", "/readyz", "/livez")]
        return iter(asyncio.run(_bodies(urls)))

    def _pages(self) -> Places:
        with chromium() as browser:
            found = {}
            for name, path in (("results page", "/"), ("voting page", "/vote")):
                page = browser.new_page()
                page.set_default_timeout(WITHIN_MS)
                loaded = _listen(page)
                page.goto(self.gateway + path)
                _settle(page)
                found[name] = b"\n".join([*loaded, page.content().encode(), page.inner_text("body").encode()])
                page.close()
        return found

    # --- Commands, files, topics, items

    def _commands(self) -> Iterator[bytes]:
        receipt = json.loads(self.receipts.splitlines()[0])["receipt"]
        for arguments in (
            ("results", self.url),
            ("results", self.url, "--json"),
            ("verify", "receipt", receipt, "--session-url", self.url),
        ):
            done = psephos(*arguments)
            assert done.returncode == 0, done.stderr
            yield (done.stdout + done.stderr).encode()

    def _files(self, *below: str) -> list[Path]:
        folder, found = self.command.folder, []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            public = name.startswith(PUBLIC_FILES)
            assert path.is_dir() or public or name.startswith(INTERNAL_FILES), f"is {name} a place?"
            if path.is_file() and public and name.startswith(below):
                found.append(path)
        return found

    def _items(self) -> Iterator[bytes]:
        pages = (
            dynamodb_client(self.settings)
            .get_paginator("scan")
            .paginate(TableName=self.settings.dynamodb_table, ConsistentRead=True)
        )
        for page in pages:
            for item in page["Items"]:
                kind = item["pk"]["S"].removeprefix(f"{self.settings.session_uid}#")
                public = kind.startswith(PUBLIC_ITEMS)
                assert public or kind.isdigit() or kind.startswith(INTERNAL_ITEMS), f"is {kind} a place?"
                if public:
                    yield kind.encode() + b" " + bytes(item["b"]["B"])

    def _control(self) -> Iterator[bytes]:
        uid = self.settings.session_uid
        topics = set(AdminClient(client_config(self.settings)).list_topics(timeout=20).topics)
        assert topics <= {control_topic(uid), votes_topic(uid), tallies_topic(uid), *INTERNAL_TOPICS}
        consumer = Consumer(consumer_config(self.settings))
        consumer.assign([TopicPartition(control_topic(uid), 0, OFFSET_BEGINNING)])
        while (message := consumer.poll(20)) is not None:
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                break
            yield b" ".join([message.key() or b"", message.value() or b"", repr(message.headers()).encode()])
        consumer.close()

    def wait_shown(self, phase: Phase, timeout: float = PATIENCE_S) -> dict[str, Any]:
        """The frame that the gateway serves, once it says so."""
        deadline = time.monotonic() + timeout
        while True:
            frame = request(f"{self.url}/results").body
            if frame and frame.get("phase") == phase and not frame["stale"]:
                return dict(frame)
            assert time.monotonic() < deadline, f"not {phase}: {frame}; {self.command.errors}"
            time.sleep(0.1)


def _lines(frames: Any) -> bytes:
    return b"\n".join(json.dumps(frame).encode() for frame in frames)


async def _bodies(urls: list[str]) -> list[bytes]:
    async with aiohttp.ClientSession() as client:
        found = []
        for url in urls:
            async with client.get(url) as answer:
                found.append(repr(answer.headers).encode() + b"\n" + await answer.read())
        return found


def _listen(page: Page) -> list[bytes]:
    """Everything that a page loads or hears."""
    heard: list[bytes] = []
    page.on("requestfinished", lambda asked: heard.append(_body(asked)))
    page.on(
        "websocket",
        lambda opened: opened.on(
            "framereceived", lambda data: heard.append(data if isinstance(data, bytes) else data.encode())
        ),
    )
    return heard


def _body(asked: Any) -> bytes:
    try:
        return bytes(asked.response().body())
    except Exception:  # a stream that goes on, an answer without a body
        return b""


def _settle(page: Page) -> None:
    """Until the page has shown what it has heard."""
    page.wait_for_load_state("networkidle")
    received = "document.querySelector('#received')"
    page.wait_for_function(f"!{received} || {received}.textContent !== '\u2013'")


def _value(client: "Redis", key: bytes) -> Any:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"hash":
            return client.hgetall(key)
        case b"list":
            return client.lrange(key, 0, -1)
        case b"set":
            return client.smembers(key)
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"stream":
            return client.xrange(key)
        case other:
            raise AssertionError(f"a key of type {other!r}: read it here")


def _flat(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, dict):
        for pair in value.items():
            yield from _flat(pair)
    elif isinstance(value, list | tuple | set):
        for each in value:
            yield from _flat(each)
    elif value is not None:
        yield str(value).encode()
