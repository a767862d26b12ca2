"""HTTP Basic against hashed passwords: slow to guess, cheap for known credentials.

Hashing a password takes about 50 ms of a core. Credentials that were right are remembered by a
keyed digest, so the provider pays once for each process. Some wrong ones are remembered too, so
a client with an old password does not pay at each request. New credentials wait for their turn, see
`password_checks`. A user that does not exist costs as many hashes as one that does, so the response
time does not reveal which users exist.
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

from ingest.access_control.password_checks import Client, PasswordChecks
from shared.settings.password import Hashed
from shared.settings.sources import BasicAuthUser

MAX_REMEMBERED: Final = 256
"""Credentials whose result is remembered, for each source: as many right ones, as many wrong."""


class BasicAuth:
    """The users of one source."""

    def __init__(self, users: Sequence[BasicAuthUser]) -> None:
        self._users = users
        self._key = os.urandom(32)
        self._right: set[bytes] = set()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._pending: dict[bytes, asyncio.Future[bool]] = {}
        self._checks = PasswordChecks()
        names = [each.user for each in users]
        self._hashes_per_check = max(map(names.count, names), default=0)

    def remembered(self, header: str) -> bool | None:
        """Whether an Authorization header is right; None when it must be verified first."""
        digest = self._digest(header)
        if digest in self._right:
            return True
        return False if digest in self._wrong else None

    async def verify(self, header: str, client: Client) -> bool:
        """Whether an Authorization header that is not remembered is right.

        Requests with the same credentials share one check.

        Raises:
            OverloadedError: too many other credentials wait for their check.
        """
        digest = self._digest(header)
        pending = self._pending.get(digest) or self._start_check(digest, header, client)
        # Shielded: a request that is cancelled does not cancel the check of the others.
        return pending is not None and await asyncio.shield(pending)

    def _start_check(
        self, digest: bytes, header: str, client: Client
    ) -> asyncio.Future[bool] | None:
        """Start to check credentials; None when the header has none.

        Raises:
            OverloadedError: see `PasswordChecks`.
        """
        user, password = _parse(header)
        if not user:
            return None
        hashed = [each.password for each in self._users if hmac.compare_digest(each.user, user)]
        pending = self._checks.submit(client, functools.partial(self._check, hashed, password))
        self._pending[digest] = pending
        pending.add_done_callback(functools.partial(self._remember, digest))
        return pending

    def _check(self, hashed: Sequence[Hashed], password: bytes) -> bool:
        """Whether one of the hashes is the password's; costs the same for every user."""
        if any(each.matches(password) for each in hashed):
            return True
        for _ in range(self._hashes_per_check - len(hashed)):
            self._users[0].password.matches(password)  # only for its cost
        return False

    def _remember(self, digest: bytes, result: asyncio.Future[bool]) -> None:
        del self._pending[digest]
        if result.cancelled() or result.exception():
            return
        if not result.result():
            self._wrong[digest] = None
            if len(self._wrong) > MAX_REMEMBERED:
                self._wrong.popitem(last=False)
        elif len(self._right) < MAX_REMEMBERED:
            self._right.add(digest)

    def _digest(self, header: str) -> bytes:
        """Keyed: the sets hold no passwords, and the time of a look-up reveals nothing."""
        return hashlib.blake2b(_encode(header), key=self._key, digest_size=16).digest()


def _parse(header: str) -> tuple[bytes, bytes]:
    """User and password; both are empty when the header is not HTTP Basic."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return b"", b""
    try:
        decoded = base64.b64decode(_encode(encoded.strip()), validate=True)
    except binascii.Error:
        return b"", b""
    user, _, password = decoded.partition(b":")
    return user, password


def _encode(header: str) -> bytes:
    return header.encode("utf-8", "surrogateescape")
