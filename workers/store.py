"""The state in Redis: merge postbacks into their records, and read records.

A window of postbacks is one pipeline with one script call for each record. A script call is atomic
for its record, so any number of workers can merge into the same record.
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
from shared.postback.postback import Key
from shared.postback.record import Record
from shared.postback.stored import FORMATS, TIME_BYTES, read_record
from shared.redis.client import client, close
from shared.redis.errors import is_temporary, redis_errors
from shared.redis.version import check_version
from shared.settings.settings import Settings
from workers.verdicts import Merged, Received, Unmergeable, decode_verdicts, notify_digits

TIME_LIMIT: Final = 3.0
"""Seconds that Redis may take to answer a pipeline, or to accept a connection."""

MAX_CALLS: Final = 1000
"""Script calls in one pipeline, so that each pipeline is done well within `TIME_LIMIT`."""

MAX_TRACKING_IDS: Final = 64
"""Tracking-ids kept for one client reference: those with the latest arrivals."""

PROBE: Final = "mms:probe"
"""The key that is written to see whether Redis takes writes; of a cluster, `mms:probe:<number>`."""

PROBE_TTL: Final = 60
"""Seconds after which Redis removes a probe's key."""

MAX_PROBE_KEYS: Final = 1000
"""Keys that are tried to find one for each primary of a cluster. That is enough for 100 primaries
of equal size. A primary with very few slots may have none of the keys, and is only pinged."""


class Store:
    """Redis as the workers use it. It connects on demand; every call has a time limit.

    Args:
        limit: seconds for a connection and for a reply.
    """

    def __init__(self, settings: Settings, limit: float = TIME_LIMIT) -> None:
        self._redis = client(settings.redis_url, limit, settings.tls_ca)
        self._ttl = max(1, round(settings.state_ttl))
        self._format = settings.record_format
        self._write = FORMATS[settings.record_format]
        self._scripts = {
            name: (files("workers") / f"{name}.lua").read_bytes() for name in ("merge", "index")
        }
        self._shas: dict[str, str] = {}

    async def merge(self, window: Sequence[Received]) -> list[Merged | Unmergeable]:
        """Add postbacks to their records.

        Adding is idempotent: after an error the same window can be merged again.

        Returns:
            One result for each record.

        Raises:
            StateUnavailableError: Redis is away, or cannot take writes now.
        """
        records: dict[Key, list[Received]] = {}
        for received in window:
            records.setdefault(received.normalised.key, []).append(received)
        calls = [self._merge_call(key, group) for key, group in records.items()]
        calls += self._index_calls(window)
        replies: list[object] = []
        for start in range(0, len(calls), MAX_CALLS):
            replies += await self._call(calls[start : start + MAX_CALLS])
        return [
            _merged(key, group, reply)
            for (key, group), reply in zip(records.items(), replies, strict=False)
        ]

    async def record(self, key: Key) -> Record | None:
        """The record of a key; None when there is none.

        Raises:
            StateUnavailableError: Redis is away.
            UnreadableRecordError: it has an entry in a newer format, or one that is damaged.
        """
        with redis_errors():
            fields = await self._redis.hgetall(key.redis)
        return read_record(key, cast("dict[bytes, bytes]", fields))

    async def tracking_ids(self, source: str, client_reference: str) -> list[str]:
        """The tracking-ids that carried a client reference, the latest arrival first.

        Raises:
            StateUnavailableError: Redis is away.
        """
        key = record.reference_key(source, client_reference)
        with redis_errors():
            # One tracking-id is a string, several are a sorted set; see index.lua.
            if await self._redis.type(key) == b"string":
                only = cast("bytes | None", await self._redis.get(key))
                return [] if only is None else [only[TIME_BYTES:].decode()]
            members = await self._redis.zrevrange(key, 0, -1)
        return [member.decode() for member in cast("list[bytes]", members)]

    async def check(self) -> None:
        """Return if Redis answers and takes writes; in a cluster, if each primary does.

        Raises:
            StateUnavailableError: it does not; the message has the reason.
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
        """Return if the server's version is supported.

        Raises:
            UnsupportedRedisError: it is not; the message has the version and what is needed.
            StateUnavailableError: Redis is away.
        """
        await check_version(self._redis)

    async def aclose(self) -> None:
        with contextlib.suppress(StateUnavailableError), redis_errors():
            await close(self._redis)

    def _merge_call(self, key: Key, group: Sequence[Received]) -> "_Call":
        arguments: list[str | bytes | int] = [
            self._ttl,
            record.MAX_POSTBACKS_KEPT,
            notify_digits(group),
        ]
        write = self._write
        for arrival, normalised, _, _ in group:
            arguments += write(arrival.received_at, normalised)
        return _Call("merge", key.redis, arguments)

    def _index_calls(self, window: Sequence[Received]) -> "list[_Call]":
        references: dict[str, list[str | int]] = {}
        for arrival, normalised, *_ in window:
            reference = normalised.postback.client_reference
            if reference is not None and normalised.key.kind == "message":
                key = record.reference_key(normalised.key.source, reference)
                references.setdefault(key, []).extend((arrival.received_at, normalised.key.id))
        return [
            _Call("index", key, [self._ttl, MAX_TRACKING_IDS, self._format, *members])
            for key, members in references.items()
        ]

    async def _call(self, calls: "Sequence[_Call]") -> list[object]:
        """One pipeline of script calls; each reply is a result, or a `ResponseError` of its own."""
        try:
            return _checked(await self._replies(calls))
        except StateUnavailableError:
            # With a cluster or Sentinel this also discards which servers are primaries.
            await self.aclose()
            raise

    async def _replies(self, calls: "Sequence[_Call]") -> list[object]:
        if not self._shas:
            await self._load_scripts()
        replies = await self._pipeline(calls)
        without_script = [
            at for at, reply in enumerate(replies) if isinstance(reply, exceptions.NoScriptError)
        ]
        if without_script:  # Redis was restarted or its scripts were flushed
            await self._load_scripts()
            again = await self._pipeline([calls[at] for at in without_script])
            for at, reply in zip(without_script, again, strict=True):
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
        """Load all scripts or none: the connection may be lost in between."""
        with redis_errors():
            self._shas = {
                name: await self._redis.script_load(source)
                for name, source in self._scripts.items()
            }


class _Call(NamedTuple):
    script: str
    key: str
    arguments: Sequence[str | bytes | int]


def _probe_keys(cluster: RedisCluster) -> list[str]:
    """A key for each primary: one can be full or read-only while the others take writes.

    Raises:
        SlotNotCoveredError: redis-py's; no node has the slot of a key that was tried.
    """
    primaries = {node.name for node in cluster.get_primaries()}
    keys: dict[str, str] = {}
    for number in range(MAX_PROBE_KEYS):
        if primaries <= keys.keys():
            break
        key = f"{PROBE}:{number}"
        if (node := cluster.get_node_from_key(key)) is not None:
            keys.setdefault(node.name, key)
    return list(keys.values())


def _merged(key: Key, group: Sequence[Received], reply: object) -> Merged | Unmergeable:
    if not isinstance(reply, list):
        return Unmergeable(group, f"Redis refuses this {key.kind} record: {mask(str(reply))}")
    verdicts, flat = reply
    try:
        after = read_record(key, dict(zip(flat[::2], flat[1::2], strict=True)))
    except UnreadableRecordError as error:
        return Unmergeable(group, f"the record cannot be read: {mask(str(error))}")
    return Merged(group, decode_verdicts(verdicts), after)


def _checked(replies: list[object]) -> list[object]:
    """The replies, unless one of them is an error that will pass.

    Raises:
        StateUnavailableError: one is; Redis cannot take writes now.
    """
    for reply in replies:
        if isinstance(reply, Exception) and is_temporary(reply):
            raise StateUnavailableError(f"Redis cannot take writes now: {mask(str(reply))}")
    return replies
