"""The errors of redis-py: is Redis unavailable now, or does it refuse one record?

Only a temporary error is worth a retry: a server that is away, starting, full, read-only or failing
over. Any other error would happen again, so it concerns one record alone.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from typing import Final

from redis import exceptions

from shared.errors import StateUnavailableError
from shared.log import mask

# The first word of an error of Redis that is temporary. Redis documents each: OOM (maxmemory),
# MISCONF (a snapshot failed), NOREPLICAS (min-replicas-to-write), BUSY and UNKILLABLE (a script
# runs), NOPERM, NOAUTH and WRONGPASS (a user whose permissions are not complete yet).
_TEMPORARY: Final = frozenset(
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

# Classes of redis-py whose text does not have that word.
_TEMPORARY_CLASSES: Final = (
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

REDIS_ERRORS: Final = (
    exceptions.RedisError,
    exceptions.RedisClusterException,  # not a RedisError
    OSError,
    TimeoutError,
    EOFError,
    asyncio.IncompleteReadError,
    RuntimeError,  # of uvloop: a write to a connection that was just reset
    KeyError,  # of redis-py: no node of the cluster has the slot
    IndexError,  # of redis-py: the cluster has no node left
    AttributeError,  # of redis-py: a connection lost while it is opened
)
"""What redis-py raises when Redis is unavailable or refuses a command."""

# redis-py's prefix of an error in a pipeline.
_IN_PIPELINE: Final = re.compile(r"Command # \d+ .*? of pipeline caused error: ", re.DOTALL)


def is_temporary(error: Exception) -> bool:
    """Whether an error says that Redis is unavailable now; if not, it refuses one record."""
    if not isinstance(error, exceptions.ResponseError) or isinstance(error, _TEMPORARY_CLASSES):
        return True
    text = _IN_PIPELINE.sub("", str(error), count=1)
    wrapped = _WRAPPED.search(text)
    word = wrapped[1] if wrapped else text.partition(" ")[0].lstrip("-")
    return word in _TEMPORARY


@contextlib.contextmanager
def redis_errors() -> Iterator[None]:
    """Translate what redis-py raises when Redis is unavailable or refuses a command.

    The body should only call redis-py: some of these errors are defects when our own code raises
    them. Errors that an argument causes (`DataError`, a text that is not Unicode) are not
    translated.

    Raises:
        StateUnavailableError: Redis is unavailable, or refuses the command.
    """
    try:
        yield
    except (exceptions.DataError, RecursionError, NotImplementedError):
        raise  # subclasses of `REDIS_ERRORS` that an argument or a defect causes, not Redis
    except REDIS_ERRORS as error:
        reason = mask(str(error) or type(error).__name__)
        if isinstance(error, KeyError):
            reason = f"no node of the cluster has slot {reason}"
        raise StateUnavailableError(
            f"Redis is not available: {reason.rstrip('. ')}; check MMS_REDIS_URL and that it runs"
        ) from error
