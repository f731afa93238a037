"""A proxy before DynamoDB Local that breaks what it is told to break. One thread a connection."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

_THROTTLED = {
    "__type": "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
    "message": "The level of configured provisioned throughput for the table was exceeded.",
}
_BROKEN = {"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "internal"}


class Kind(Enum):
    """What happens to a call."""

    THROTTLE = "throttled"
    ERROR = "error 500"
    CUT_AFTER = "connection cut after the write"
    CUT_BEFORE = "connection cut before the write"
    HANG = "no answer"
    DELAY = "delayed"
    HOLD = "held until healed"


class Fault(NamedTuple):
    """`seconds`: of DELAY, and of HANG and HOLD at most."""

    kind: Kind
    seconds: float = 0.0


class Call(NamedTuple):
    """A call as it came: PutItem, Query, GetItem ... and its body."""

    operation: str
    body: dict[str, Any]

    @property
    def is_block(self) -> bool:
        """Whether it puts a block: their partition key ends with a number."""
        if self.operation != "PutItem":
            return False
        return str(self.body["Item"]["pk"]["S"]).rpartition("#")[2].isdigit()


Plan = Callable[[Call], Fault | None]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: object) -> None:
        """Clients that were killed leave broken connections: that is what the suite is for."""


class DynamoProxy:
    """Serves until `close`. `injected` counts the faults, `forwarded` the calls that reached the server."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream.removeprefix("http://")
        self._plan: Plan = lambda _call: None
        self._lock = threading.Lock()
        self.injected: Counter[Kind] = Counter()
        self.forwarded: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                self.server_side = http.client.HTTPConnection(proxy._upstream, timeout=60)

            def finish(self) -> None:
                self.server_side.close()
                super().finish()

            def do_POST(self) -> None:
                proxy._serve(self)

            def log_message(self, *_: object) -> None:
                """The counters tell."""

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="dynamodb-proxy", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def plan(self, plan: Plan) -> None:
        """From now on `plan` decides what becomes of each call; it is asked under a lock."""
        self._plan = plan

    def heal(self) -> None:
        self._plan = lambda _call: None

    def first(self, number: int, fault: Fault, when: Callable[[Call], bool] = lambda call: call.is_block) -> None:
        """The first `number` calls that fit fail so, one after the other."""
        left = number

        def plan(call: Call) -> Fault | None:
            nonlocal left
            if left == 0 or not when(call):
                return None
            left -= 1
            return fault

        self.plan(plan)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Nothing gets through: every second call is cut, the others hang until the client gives up."""
        turn = 0

        def plan(_call: Call) -> Fault:
            nonlocal turn
            turn += 1
            return Fault(Kind.CUT_BEFORE) if turn % 2 else Fault(Kind.HANG, 30.0)

        self.plan(plan)
        try:
            yield
        finally:
            self.heal()

    def _serve(self, request: Any) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        call = Call(request.headers["X-Amz-Target"].rpartition(".")[2], json.loads(body))
        with self._lock:
            fault = self._plan(call)
            if fault is not None:
                self.injected[fault.kind] += 1
        match fault:
            case Fault(Kind.THROTTLE):
                _answer(request, 400, json.dumps(_THROTTLED).encode())
            case Fault(Kind.ERROR):
                _answer(request, 500, json.dumps(_BROKEN).encode())
            case Fault(Kind.CUT_BEFORE):
                _cut(request)
            case Fault(Kind.HANG, seconds):
                self._wait(fault, seconds)
                _cut(request)
            case Fault(Kind.CUT_AFTER):
                self._forward(request, call, body)
                _cut(request)
            case Fault(Kind.HOLD, seconds):
                self._wait(fault, seconds)
                _answer(request, *self._forward(request, call, body))
            case Fault(Kind.DELAY, seconds):
                time.sleep(seconds)
                _answer(request, *self._forward(request, call, body))
            case _:
                _answer(request, *self._forward(request, call, body))

    def _wait(self, fault: Fault, seconds: float) -> None:
        """As long as the outage lasts, at most `seconds`."""
        plan, deadline = self._plan, time.monotonic() + seconds
        while self._plan is plan and time.monotonic() < deadline:
            time.sleep(0.05)

    def _forward(self, request: Any, call: Call, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
        request.server_side.request("POST", request.path, body, headers)
        answer = request.server_side.getresponse()
        content = answer.read()
        with self._lock:
            self.forwarded[call.operation] += 1
        kept = {
            name: value
            for name, value in answer.getheaders()
            if name.lower().startswith(("x-amz", "content-type"))
        }
        return answer.status, content, kept


def _answer(request: Any, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    try:
        request.send_response(status)
        for name, value in (headers or {"Content-Type": "application/x-amz-json-1.0"}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
    except OSError:
        request.close_connection = True


def _cut(request: Any) -> None:
    request.close_connection = True
