"""The findings of one partition's recount, and their formats in the ledger: verdict and ballot patterns."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from psephos.formats.blocks import RecordClass, State
from psephos.formats.columns import pack_big_ints, pack_chunks, unpack_big_ints, unpack_chunks
from psephos.formats.errors import UNREADABLE, Malformed

VERSION = 1
MAX_DIFFERENCES = 100  # kept per partition; further ones are only counted
CHUNK_BYTES = 300_000  # of ballot patterns in one ledger item, which takes 400 KB


class Difference(msgspec.Struct, frozen=True, rename="camel"):
    """A place where log and ledger disagree. Without partition or offset it concerns the whole session.

    `detail` is for people. It never holds a figure per option, nor a ballot: reports may be read under embargo.
    """

    partition: int | None
    offset: int | None
    kind: str
    detail: str = ""


class Verdict(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The verdict on one partition. Everything but `head` and the differences comes from the log alone.

    end: sealed end, or the head at the start of an audit; records: decided, including control records; log_end:
    end of the log when it was read; tallies in millionths; classes by RecordClass; head: hash (hex) of the last
    block in the ledger; difference_count: includes those not kept; patterns: SHA-256 (hex) of the chunks.
    """

    version: int = VERSION
    partition: int
    end: int
    log_end: int
    records: int
    tallies: tuple[int, ...]
    classes: tuple[int, ...]
    voters: int
    closed_at: int
    head: str
    differences: tuple[Difference, ...]
    difference_count: int
    patterns: str

    @property
    def state(self) -> State:
        """The cumulative state of the partition according to the log."""
        return State(self.tallies, self.classes, self.voters, self.closed_at)

    @property
    def log_records(self) -> int:
        """Number of records in the log by its end offset, without control records."""
        return self.log_end - self.classes[RecordClass.CONTROL]


def without_figures(verdict: Verdict) -> Verdict:
    """Returns the verdict of an audit under embargo: no tallies, nor the patterns' hash.

    NB: the hash is a figure too. With few options, anyone who knows the turnout can find the counts by trying all.
    """
    return msgspec.structs.replace(verdict, tallies=(), patterns="")


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Verdict)


def encode_verdict(verdict: Verdict) -> bytes:
    """Encodes a verdict as JSON, the same bytes for the same findings: no time, no duration."""
    return _encoder.encode(verdict)


def decode_verdict(data: bytes) -> Verdict:
    """The inverse of `encode_verdict`. Raises Malformed."""
    try:
        verdict = _decoder.decode(data)
    except UNREADABLE as error:
        raise Malformed(f"not a verdict: {error}") from None
    if verdict.version != VERSION:
        raise Malformed(f"verdict of version {verdict.version}, known is {VERSION}")
    return verdict


class _Chunk(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    count: int
    lengths: bytes
    ballots: bytes
    weights: bytes


_pack = msgspec.msgpack.Encoder().encode
_chunks = msgspec.msgpack.Decoder(_Chunk)


def pattern_chunks(patterns: Mapping[bytes, int], limit: int = CHUNK_BYTES) -> Iterator[bytes]:
    """Yields the counted ballots in items of at most about `limit` bytes, in ballot order; none if no ballots."""
    ballots: list[bytes] = []
    size = 0
    for ballot in sorted(patterns):
        ballots.append(ballot)
        size += len(ballot) + 16  # weight, length
        if size >= limit - 8_192:
            yield _chunk(ballots, patterns)
            ballots, size = [], 0
    if ballots:
        yield _chunk(ballots, patterns)


def read_patterns(chunks: Iterable[bytes]) -> dict[bytes, int]:
    """The inverse of `pattern_chunks`. Raises Malformed."""
    patterns: dict[bytes, int] = {}
    for data in chunks:
        try:
            chunk = _chunks.decode(data)
            ballots = unpack_chunks(chunk.lengths, chunk.ballots, chunk.count)
            patterns |= zip(ballots, unpack_big_ints(chunk.weights), strict=True)
        except (*UNREADABLE, ValueError) as error:
            raise Malformed(f"not a chunk of ballot patterns: {error}") from None
    return patterns


def patterns_hash(chunks: Iterable[bytes]) -> str:
    """Returns the SHA-256 of all chunks, in hex: the verdict commits to them."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _chunk(ballots: list[bytes], patterns: Mapping[bytes, int]) -> bytes:
    lengths, joined = pack_chunks(ballots)
    return _pack(_Chunk(len(ballots), lengths, joined, pack_big_ints([patterns[ballot] for ballot in ballots])))
