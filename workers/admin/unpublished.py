"""Which part of the archive a rebuild has merged and perhaps not published, kept in Redis.

A postback that was merged by an earlier run is not new to the next one, so the next one would not
publish its event. A run that publishes therefore notes each window before it merges it, beside the
records: whoever loses the one loses the other. The next run publishes what was noted again.
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
"""A set of windows; each is the run's name, the first and the last offset, and `earliest`."""


class Span(NamedTuple):
    """A window of the archive.

    Attributes:
        first, last: offsets in the archive.
        earliest: as `Restorer` takes it.
    """

    first: int
    last: int
    earliest: int


class Unpublished:
    """The windows that were noted, by this run and by others."""

    def __init__(self, settings: Settings) -> None:
        self._redis = client(settings.redis_url, TIME_LIMIT, settings.tls_ca)
        self._ttl = max(1, round(settings.state_ttl))
        self._run = secrets.token_hex(4)
        self._noted = ""

    async def note(self, span: Span) -> None:
        """Note a window that will be merged; the one before it is published.

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
        """The last window that was noted is published.

        Raises:
            StateUnavailableError: Redis is away.
        """
        await self.forget(self._noted)
        self._noted = ""

    async def found(self) -> dict[str, Span]:
        """What other runs noted and did not finish, by what `forget` takes.

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
        """A window that was noted is published.

        Raises:
            StateUnavailableError: Redis is away.
        """
        if noted:
            with redis_errors():
                await self._redis.srem(KEY, noted)

    async def aclose(self) -> None:
        with contextlib.suppress(StateUnavailableError), redis_errors():
            await close(self._redis)
