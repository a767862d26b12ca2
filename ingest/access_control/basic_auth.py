"""HTTP Basic against hashed passwords: slow to guess, cheap for who is known.

A password's hash takes some 50 ms of a core. Credentials that were right are remembered by a keyed
digest, so that the provider pays once for each process; those that were wrong too, a few of them,
so that a sender with an old password does not pay each time. What is new waits for its turn, see
`checks`. A user that does not exist costs as many hashes as one that does, so that the time of an
answer does not tell which users there are.
"""

import asyncio
import base64
import binascii
import functools
import hashlib
import hmac
import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from ingest.access_control.password_checks import Checks, Sender
from shared.settings.password import Hashed
from shared.settings.sources import BasicAuthUser

REMEMBERED: Final = 256
"""Credentials whose verdict is remembered, for each source."""


class Logins:
    """Users of one source."""

    def __init__(self, logins: Sequence[BasicAuthUser]) -> None:
        self._logins = logins
        self._key = os.urandom(32)
        self._right: set[bytes] = set()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._pending: dict[bytes, asyncio.Future[bool]] = {}
        self._checks = Checks()
        users = [one.user for one in logins]
        self._hashes = max(map(users.count, users), default=0)

    def known(self, header: str) -> bool | None:
        """The verdict on an Authorization header that came before; None if it did not."""
        digest = self._digest(header)
        if digest in self._right:
            return True
        return False if digest in self._wrong else None

    async def verify(self, header: str, sender: Sender) -> bool:
        """The verdict on an Authorization header that did not come before.

        Many requests with the same credentials wait for one verdict.

        Raises:
            OverloadedError: too many other credentials wait for theirs.
        """
        digest = self._digest(header)
        pending = self._pending.get(digest) or self._begin(digest, header, sender)
        # Shielded: who gives up waiting does not take the verdict from the others.
        return pending is not None and await asyncio.shield(pending)

    def _begin(self, digest: bytes, header: str, sender: Sender) -> asyncio.Future[bool] | None:
        """Have credentials checked; None if there are none.

        Raises:
            OverloadedError: see `Checks`.
        """
        user, password = _parsed(header)
        if not user:
            return None
        hashed = [one.password for one in self._logins if hmac.compare_digest(one.user, user)]
        pending = self._checks.wait(sender, functools.partial(self._check, hashed, password))
        self._pending[digest] = pending
        pending.add_done_callback(functools.partial(self._remember, digest))
        return pending

    def _check(self, hashed: Sequence[Hashed], password: bytes) -> bool:
        """Whether one of the hashes is the password's; costs the same for every user."""
        if any(each.matches(password) for each in hashed):
            return True
        for _ in range(self._hashes - len(hashed)):
            self._logins[0].password.matches(password)  # whatever it says
        return False

    def _remember(self, digest: bytes, verdict: asyncio.Future[bool]) -> None:
        del self._pending[digest]
        if verdict.cancelled() or verdict.exception():
            return
        if not verdict.result():
            self._wrong[digest] = None
            if len(self._wrong) > REMEMBERED:
                self._wrong.popitem(last=False)
        elif len(self._right) < REMEMBERED:
            self._right.add(digest)

    def _digest(self, header: str) -> bytes:
        """Keyed: the sets hold no passwords, and their timing tells nobody anything."""
        return hashlib.blake2b(_bytes(header), key=self._key, digest_size=16).digest()


def _parsed(header: str) -> tuple[bytes, bytes]:
    """User and password; both empty if it is no Basic."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return b"", b""
    try:
        user, _, password = base64.b64decode(_bytes(encoded.strip()), validate=True).partition(b":")
    except binascii.Error:
        return b"", b""
    return user, password


def _bytes(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")
