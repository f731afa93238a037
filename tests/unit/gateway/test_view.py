"""A frame encoded once for everybody: GET's body and ETag, the WebSocket message, the SSE event."""

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psephos.formats.errors import Malformed
from psephos.formats.frames import Frame, Turnout, encode_frame
from psephos.roles.gateway.view import Position, View, http_chunk, parse_position, readable, text_message, view_of


def frame(version: int = 7, epoch: str = "ab12", final: bool = False) -> Frame:
    return Frame(
        session="s", epoch=epoch, version=version, phase="Open", totals={"ada": 1}, as_of=1, lag_ms=0, final=final,
        turnout=Turnout(1, 1, 0, 0, {}, 1),
    )  # fmt: skip


def view(version: int = 7, *, stale: bool = False, epoch: str = "ab12", final: bool = False) -> View:
    made = frame(version, epoch, final)
    return view_of(made, encode_frame(made), stale=stale)


def test_the_body_is_the_frame_and_the_gateways_own_mark() -> None:
    body = json.loads(view(stale=True).body)
    assert body.pop("stale") is True
    assert body == json.loads(encode_frame(frame()))


def test_members_that_this_version_does_not_know_are_passed_on() -> None:
    body = encode_frame(frame())[:-1] + b',"fromTheFuture":[1,2]}'
    assert json.loads(view_of(readable(body), body, stale=False).body)["fromTheFuture"] == [1, 2]


def test_the_etag_changes_with_every_part_of_the_body() -> None:
    tags = {view().etag, view(8).etag, view(stale=True).etag, view(epoch="cd").etag, view(final=True).etag}
    assert len(tags) == 5
    assert view().etag == view().etag


def test_the_event_names_its_position_for_resuming() -> None:
    lines = view(42).event.split(b"\n")
    assert lines[0] == b"id: ab12:42"
    assert lines[1] == b"data: " + view(42).body
    assert lines[2:] == [b"", b""]


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"nonsense", b'{"session":'])
def test_what_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(Malformed):
        readable(body)


def test_a_body_of_several_lines_is_refused_because_it_would_break_an_event() -> None:
    with pytest.raises(Malformed):
        readable(encode_frame(frame()).replace(b",", b",\n", 1))


@given(st.binary(max_size=70_000) | st.integers(0, 70_000).map(lambda size: b"x" * size))
def test_a_text_message_is_framed_as_the_protocol_says(payload: bytes) -> None:
    message = text_message(payload)
    assert message[0] == 0x81
    short = message[1]
    assert short & 0x80 == 0, "servers do not mask"
    if short == 126:
        (size,), at = struct.unpack_from(">H", message, 2), 4
        assert size >= 126
    elif short == 127:
        (size,), at = struct.unpack_from(">Q", message, 2), 10
        assert size >= 1 << 16
    else:
        size, at = short, 2
    assert message[at:] == payload
    assert len(payload) == size


@given(st.binary(min_size=1, max_size=500))
def test_a_chunk_has_its_size_in_front(data: bytes) -> None:
    size, _, rest = http_chunk(data).partition(b"\r\n")
    assert rest == data + b"\r\n"
    assert int(size, 16) == len(data)


@given(st.from_regex(r"[0-9a-f]{1,64}", fullmatch=True), st.integers(0, 1 << 53))
def test_a_position_reads_back_from_its_text(epoch: str, version: int) -> None:
    assert parse_position(str(Position(epoch, version))) == Position(epoch, version)


@pytest.mark.parametrize(
    "text", ["", ":", "ab", "ab:", ":1", "ab:-1", "ab:01", "xy:1", "ab:1:2", "ab:1\n", "a" * 65 + ":1"]
)
def test_a_position_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        parse_position(text)


def test_a_view_concerns_whoever_has_not_seen_more() -> None:
    newest = view(7)
    assert newest.concerns(None)
    assert newest.concerns(Position("ab12", 6))
    assert newest.concerns(Position("ab12", 7)), "the mark may have changed"
    assert not newest.concerns(Position("ab12", 8)), "a version never goes backwards"
    assert newest.concerns(Position("ffff", 8)), "another epoch: forget and resync"
