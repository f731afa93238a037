"""Finds a token's voter, with the issuer's newest keys. `intake` checks the voter against the roll."""

import time

from psephos.roles.ingest.jwks import PublishedKeys
from psephos.roles.ingest.keys import UnknownKey
from psephos.roles.ingest.verifier import Verifier, Voter


class Eligibility:
    """A session's check of tokens. `issuer`: where its keys are published, if they are."""

    def __init__(self, verifier: Verifier, issuer: PublishedKeys | None = None) -> None:
        self.verifier = verifier
        self.issuer = issuer

    async def voter(self, token: str) -> Voter:
        """Returns the voter that the token names now. Raises Problem: invalid-token, not-eligible, overloaded."""
        now_s = time.time()
        try:
            return self.verifier.verify(token, now_s)
        except UnknownKey:
            if not await self.look_again():
                raise
        return self.verifier.verify(token, now_s)

    async def look_again(self) -> bool:
        """Fetches the issuer's keys again; returns whether it did. Raises Problem overloaded if it could not."""
        return self.issuer is not None and await self.issuer.look_again()
