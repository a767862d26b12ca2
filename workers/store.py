"""The state in Redis: merge what was received, read back what is known.

A whole window of postbacks is one pipeline with one script call for each record it touches. A
script call is atomic for its record, so any number of workers may merge into the same one.
"""

import contextlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Final, NamedTuple, cast

from redis import exceptions
from redis.asyncio.cluster import RedisCluster

from shared.errors import StateUnavailableError, UnreadableRecordError
from shared.log import mask
from shared.postback import record
from shared.postback.envelope import Arrival
from shared.postback.postback import Key, NormalisedPostback
from shared.postback.record import Record
from shared.redis.client import client, close
from shared.redis.errors import is_temporary, redis_errors
from shared.redis.version import check_version
from shared.settings.settings import Settings

TIME_LIMIT: Final = 3.0
"""Seconds that Redis may take to answer a pipeline, or to accept a connection."""

CALLS: Final = 1000
"""Script calls in one pipeline, so that each is done well within `TIME_LIMIT`."""

REFERENCES: Final = 64
"""Tracking-ids kept for one reference of the customer's: those heard of last."""

PROBE: Final = "mms:probe"
"""The key that is written to see whether Redis takes writes; of a cluster, `mms:probe:<number>`."""

PROBE_TTL: Final = 60
"""Seconds after which Redis removes a probe's key."""

PROBE_KEYS: Final = 1000
"""Keys that are tried to find one for each primary of a cluster. Of 100 primaries of equal size all
have one of them; a primary with very few slots may have none, and is only pinged."""


class Received(NamedTuple):
    """A postback that is to be merged.

    Attributes:
        arrival: as it came.
        filing: what it means.
        redelivered: whether its batch was delivered before, to somebody who may have died
            between writing the state and telling of it.
        batch: the id of its batch.
    """

    arrival: Arrival
    normalised: NormalisedPostback
    redelivered: bool
    batch: str = ""


class Merged(NamedTuple):
    """What became of the postbacks of one record.

    Attributes:
        results: one letter for each postback, as `merge.lua` returns them.
        record: the record after the merge, when a terminal postback that decides its track is to
            be told of; else None. Of a large one only its highest-ranked postbacks, see
            `merge.lua`.
    """

    received: Sequence[Received]
    results: str
    record: Record | None


class Unmergeable(NamedTuple):
    """Postbacks of one record that Redis refuses for a reason that waiting will not mend."""

    received: Sequence[Received]
    error: str


class Store:
    """Redis as the workers use it. Connects when it must; every call has a time limit.

    Args:
        limit: seconds for a connection and for an answer.
    """

    def __init__(self, settings: Settings, limit: float = TIME_LIMIT) -> None:
        self._redis = client(settings.redis_url, limit, settings.tls_ca)
        self._ttl = max(1, round(settings.state_ttl))
        self._scripts = {
            name: (files("workers") / f"{name}.lua").read_bytes() for name in ("merge", "index")
        }
        self._shas: dict[str, str] = {}

    async def merge(self, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        """Add postbacks to their records; for each record what changed.

        Adding is idempotent: after an error the same window can be merged again.

        Raises:
            StateUnavailableError: Redis is away, or there but cannot take writes now.
        """
        records: dict[Key, list[Received]] = {}
        for received in window:
            records.setdefault(received.normalised.key, []).append(received)
        calls = [self._merge_call(key, batch) for key, batch in records.items()]
        calls += self._index_calls(window)
        replies: list[object] = []
        for start in range(0, len(calls), CALLS):
            replies += await self._call(calls[start : start + CALLS])
        return [
            _merged(key, batch, reply)
            for (key, batch), reply in zip(records.items(), replies, strict=False)
        ]

    async def record(self, key: Key) -> Record | None:
        """What is known under a key, None when nothing is.

        Raises:
            StateUnavailableError: Redis is away.
            UnreadableRecordError: a newer release wrote it.
        """
        with redis_errors():
            fields = await self._redis.hgetall(key.redis)
        return record.read_record(key, cast("dict[bytes, bytes]", fields))

    async def tracking_ids(self, source: str, client_reference: str) -> list[str]:
        """The tracking-ids that carried a reference of the customer's, the latest first.

        Raises:
            StateUnavailableError: Redis is away.
        """
        with redis_errors():
            key = record.reference_key(source, client_reference)
            members = await self._redis.zrevrange(key, 0, -1)
        return [member.decode() for member in cast("list[bytes]", members)]

    async def check(self) -> None:
        """Return if Redis answers and takes writes; of a cluster, if each of its primaries does.

        Raises:
            StateUnavailableError: it does not; says why.
        """
        with redis_errors():
            if isinstance(self._redis, RedisCluster):
                await self._redis.ping(target_nodes=RedisCluster.PRIMARIES)
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for key in _probe_keys(self._redis):
                        pipeline.set(key, b"", ex=PROBE_TTL)
                    await pipeline.execute()
            else:
                await self._redis.set(PROBE, b"", ex=PROBE_TTL)

    async def check_version(self) -> None:
        """Return if this server's version is one that we support.

        Raises:
            UnsupportedRedisError: it is not; says what is there and what is needed.
            StateUnavailableError: Redis is away.
        """
        await check_version(self._redis)

    async def aclose(self) -> None:
        with contextlib.suppress(StateUnavailableError), redis_errors():
            await close(self._redis)

    def _merge_call(self, key: Key, batch: Sequence[Received]) -> "_Call":
        wishes = ""
        arguments: list[str | bytes] = []
        for arrival, normalised, redelivered, _ in batch:
            wishes += "0" if not normalised.rank.terminal else "2" if redelivered else "1"
            arguments.append(record.entry_name(normalised))
            arguments.append(record.entry_value(arrival.received_at, normalised.postback))
        return _Call("merge", key.redis, (self._ttl, record.MAX_POSTBACKS_KEPT, wishes, *arguments))

    def _index_calls(self, window: Sequence[Received]) -> "list[_Call]":
        references: dict[str, list[str | int]] = {}
        for arrival, normalised, *_ in window:
            reference = normalised.postback.client_reference
            if reference is not None and normalised.key.kind == "message":
                key = record.reference_key(normalised.key.source, reference)
                references.setdefault(key, []).extend((arrival.received_at, normalised.key.id))
        return [
            _Call("index", key, (self._ttl, REFERENCES, *members))
            for key, members in references.items()
        ]

    async def _call(self, calls: "Sequence[_Call]") -> list[object]:
        """One pipeline of script calls; each reply is a result or a `ResponseError` of its own."""
        try:
            return _refuse_passing(await self._replies(calls))
        except StateUnavailableError:
            await self.aclose()  # with a cluster or Sentinel also what is known about primaries
            raise

    async def _replies(self, calls: "Sequence[_Call]") -> list[object]:
        if not self._shas:
            await self._load_scripts()
        replies = await self._pipeline(calls)
        forgotten = [
            at for at, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)
        ]
        if forgotten:  # Redis was restarted or its scripts were flushed
            await self._load_scripts()
            again = await self._pipeline([calls[at] for at in forgotten])
            for at, reply in zip(forgotten, again, strict=True):
                replies[at] = reply
        return replies

    async def _pipeline(self, calls: "Sequence[_Call]") -> list[object]:
        commands = [(self._shas[script], 1, key, *arguments) for script, key, arguments in calls]
        with redis_errors():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for command in commands:
                    pipeline.execute_command("EVALSHA", *command)
                replies: list[object] = await pipeline.execute(raise_on_error=False)
        return replies

    async def _load_scripts(self) -> None:
        """All or none of them: a connection may be lost in between."""
        with redis_errors():
            self._shas = {
                name: await self._redis.script_load(source)
                for name, source in self._scripts.items()
            }


class _Call(NamedTuple):
    script: str
    key: str
    arguments: tuple[str | bytes | int, ...]


def _probe_keys(cluster: RedisCluster) -> list[str]:
    """A key of each primary: while one is full or read-only, the others take writes.

    Raises:
        SlotNotCoveredError: redis-py's; no node has the slot of one of the keys tried.
    """
    primaries = {node.name for node in cluster.get_primaries()}
    keys: dict[str, str] = {}
    for number in range(PROBE_KEYS):
        if primaries <= keys.keys():
            break
        key = f"{PROBE}:{number}"
        if (node := cluster.get_node_from_key(key)) is not None:
            keys.setdefault(node.name, key)
    return list(keys.values())


def _merged(key: Key, batch: Sequence[Received], reply: object) -> Merged | Unmergeable:
    if not isinstance(reply, list):
        return Unmergeable(batch, f"Redis refuses {key.kind} record: {mask(str(reply))}")
    results, flat = reply
    try:
        known = record.read_record(key, dict(zip(flat[::2], flat[1::2], strict=True)))
    except UnreadableRecordError as error:
        return Unmergeable(batch, f"the record cannot be read: {mask(str(error))}")
    return Merged(batch, results.decode(), known)


def _refuse_passing(replies: list[object]) -> list[object]:
    """Raises: StateUnavailableError: one of them is Redis's own trouble, which will pass."""
    for reply in replies:
        if isinstance(reply, Exception) and is_temporary(reply):
            raise StateUnavailableError(f"Redis takes no writes now: {mask(str(reply))}")
    return replies
