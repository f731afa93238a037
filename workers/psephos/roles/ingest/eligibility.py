"""Who may vote: a token's voter, with the issuer's newest keys. `intake` holds the voter against the roll."""

import time

from psephos.roles.ingest.jwks import PublishedKeys
from psephos.roles.ingest.keys import UnknownKey
from psephos.roles.ingest.verifier import Verifier, Voter


class Eligibility:
    """What a session asks of a token. `issuer`: where its keys are published, if they are."""

    def __init__(self, verifier: Verifier, issuer: PublishedKeys | None = None) -> None:
        self.verifier = verifier
        self.issuer = issuer

    async def voter(self, token: str) -> Voter:
        """The voter whom the token names now. Raises Problem: invalid-token, not-eligible, or overloaded."""
        now_s = time.time()
        try:
            return self.verifier.verify(token, now_s)
        except UnknownKey:
            if not await self.look_again():
                raise
        return self.verifier.verify(token, now_s)

    async def look_again(self) -> bool:
        """Whether the issuer's keys were fetched anew. Raises Problem overloaded if they could not be."""
        return self.issuer is not None and await self.issuer.look_again()
