"""Problems as HTTP responses (RFC 9457): one class and one encoding. Each role has its own table of kinds.

The body is `application/problem+json` with `type` (a stable URI whose last part is the slug), `title`, `status`,
`detail` (what was wrong, where, what to do), and further members that the problem adds.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final, NamedTuple

import msgspec

from psephos.platform.errors import PsephosError

TYPE_BASE: Final = "https://psephos.dev/problems/"
MEDIA_TYPE: Final = "application/problem+json"


class Kind(NamedTuple):
    """A type of problem. cause, remedy: what happened and what to do, for the documentation."""

    status: int
    title: str
    cause: str
    remedy: str


class Problem(PsephosError):
    """A refused request. `slug` is a key of `kinds`, the table of the role that refuses it."""

    kinds: ClassVar[Mapping[str, Kind]]

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
        **members: object,
    ) -> None:
        self.slug = slug
        self.kind = self.kinds[slug]
        self.detail = detail
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["Retry-After"] = str(retry_after_s)
        self.members = members
        super().__init__(f"{slug}: {detail}")

    @property
    def status(self) -> int:
        return self.kind.status

    def document(self) -> dict[str, Any]:
        """The problem+json object."""
        return {
            "type": TYPE_BASE + self.slug,
            "title": self.kind.title,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }

    def encode(self) -> bytes:
        return msgspec.json.encode(self.document())
