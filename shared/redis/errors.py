"""What an error of Redis means: it cannot do its work now, or it refuses one record.

Only what may pass is worth another try: a server that is away, starting, full, read-only or failing
over. Anything else would happen again, so it concerns the record alone.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Final

from redis import exceptions

from shared.errors import StateUnavailableError
from shared.log import mask

# Redis's own words for "not now": the first word of an error. The list is in the documentation of
# each: OOM (maxmemory), MISCONF (a snapshot failed), NOREPLICAS (min-replicas-to-write), BUSY and
# UNKILLABLE (a script runs), NOPERM, NOAUTH and WRONGPASS (a user whose rights are not right yet).
_PASSING: Final = frozenset(
    {
        "ASK",
        "BUSY",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "NOSCRIPT",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNKILLABLE",
        "WRONGPASS",
    }
)

# Classes of redis-py whose text has lost that word.
_PASSING_CLASSES: Final = (
    exceptions.AuthenticationError,
    exceptions.ClusterError,
    exceptions.ConnectionError,
    exceptions.NoPermissionError,
    exceptions.NoScriptError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,
    exceptions.TryAgainError,
)

# Redis before 7, and some proxies: `Error running script (call to f_…): @user_script:21:
# @user_script: 21: -OOM command not allowed …`
_WRAPPED: Final = re.compile(r"@user_script:\s*\d+:\s*-([A-Z]+)\b")

# redis-py's own prefix of an error in a pipeline that it raises.
_IN_PIPELINE: Final = re.compile(r"Command # \d+ .*? of pipeline caused error: ", re.DOTALL)


def passes(error: Exception) -> bool:
    """Whether an error says that Redis cannot work now, as against that it refuses one record."""
    if not isinstance(error, exceptions.ResponseError) or isinstance(error, _PASSING_CLASSES):
        return True
    text = _IN_PIPELINE.sub("", str(error), count=1)
    wrapped = _WRAPPED.search(text)
    word = wrapped[1] if wrapped else text.partition(" ")[0].lstrip("-")
    return word in _PASSING


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises when Redis does not do its work.

    Put nothing but calls of redis-py into its body: from others, some of these errors would be
    defects of ours. What an argument of ours causes (`DataError`, a text that is no Unicode) stays
    as it is.

    Raises:
        StateUnavailableError: Redis is away, or refuses what we asked.
    """
    try:
        yield
    except (exceptions.DataError, RecursionError, NotImplementedError):
        raise
    except (
        exceptions.RedisError,
        exceptions.RedisClusterException,  # which is no RedisError
        OSError,
        TimeoutError,
        EOFError,
        asyncio.IncompleteReadError,
        RuntimeError,  # uvloop's, for writing to a connection that was just reset
        KeyError,  # redis-py's, for a slot of a cluster that no node has
        IndexError,  # redis-py's, for a cluster whose nodes are all gone
        AttributeError,  # redis-py's, for a connection lost while it is being made
    ) as error:
        reason = mask(str(error) or type(error).__name__)
        if isinstance(error, KeyError):
            reason = f"no node of the cluster has slot {reason}"
        raise StateUnavailableError(
            f"Redis is not available: {reason.rstrip('. ')}; check MMS_REDIS_URL and that it runs"
        ) from error
