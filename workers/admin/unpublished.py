"""The windows of the archive that a rebuild merged and perhaps did not publish, kept in Redis.

A postback that an interrupted run has merged is a duplicate for the next run, which then does not
publish its event. So a run that publishes notes each window before it merges it. The next run
publishes the noted windows again. The notes are in Redis, beside the records: a Redis that loses
its data loses both.
"""

import contextlib
import secrets
from typing import Final, NamedTuple, cast

from shared.errors import StateUnavailableError
from shared.redis.client import client, close
from shared.redis.errors import redis_errors
from shared.settings.settings import Settings
from workers.store import TIME_LIMIT

KEY: Final = "mms:rebuild:unpublished"
"""A set. Each member is a window: the id of the run, the first and last offset, and `earliest`."""


class Span(NamedTuple):
    """A window of the archive.

    Attributes:
        first, last: offsets in the archive.
        earliest: as for `Restorer`.
    """

    first: int
    last: int
    earliest: int


class Unpublished:
    """The noted windows, of this run and of others."""

    def __init__(self, settings: Settings) -> None:
        self._redis = client(settings.redis_url, TIME_LIMIT, settings.tls_ca)
        self._ttl = max(1, round(settings.state_ttl))
        self._run = secrets.token_hex(4)
        self._noted = ""

    async def note(self, span: Span) -> None:
        """Note a window before it is merged; the window before it is published.

        Raises:
            StateUnavailableError: Redis is away.
        """
        noted = " ".join(map(str, (self._run, *span)))
        with redis_errors():
            await self._redis.sadd(KEY, noted)
            await self._redis.expire(KEY, self._ttl)
        if noted != self._noted:
            await self.forget(self._noted)
        self._noted = noted

    async def done(self) -> None:
        """Remove the note of the last window, which is published.

        Raises:
            StateUnavailableError: Redis is away.
        """
        await self.forget(self._noted)
        self._noted = ""

    async def found(self) -> dict[str, Span]:
        """The windows that earlier runs did not finish, by the note that `forget` removes.

        Raises:
            StateUnavailableError: Redis is away.
        """
        with redis_errors():
            members = await self._redis.smembers(KEY)
        found: dict[str, Span] = {}
        for member in sorted(cast("set[bytes]", members)):
            noted = member.decode(errors="replace")
            with contextlib.suppress(ValueError):
                first, last, earliest = map(int, noted.split(" ")[1:])
                found[noted] = Span(first, last, earliest)
        return found

    async def forget(self, noted: str) -> None:
        """Remove a note: its window is published.

        Raises:
            StateUnavailableError: Redis is away.
        """
        if noted:
            with redis_errors():
                await self._redis.srem(KEY, noted)

    async def aclose(self) -> None:
        with contextlib.suppress(StateUnavailableError), redis_errors():
            await close(self._redis)
