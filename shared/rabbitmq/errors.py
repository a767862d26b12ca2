"""The errors of aiormq, aio-pika and pamqp, translated into ours in one place."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from aiormq.exceptions import AMQPError
from pamqp.exceptions import PAMQPException

from shared.cancellation import raise_lost_cancellation
from shared.errors import BrokerUnavailableError

CONNECTION_ERRORS: Final = (
    TimeoutError,
    OSError,
    EOFError,
    StopAsyncIteration,  # aiormq, when the server closes before its first frame
    RuntimeError,
    ValueError,
    AMQPError,
    PAMQPException,
)
"""What the libraries raise when a connection cannot be opened, is lost, or does not speak AMQP."""


@contextlib.contextmanager
def connection_errors(what: str = "") -> Iterator[None]:
    """Translate what the libraries raise at the end of a connection.

    aiormq also fails pending calls with a bare `Exception`, or with a `CancelledError` although
    nobody cancelled this task. A cancellation that a library has lost is raised.

    Args:
        what: the operation that failed; the error's text begins with it.

    Raises:
        BrokerUnavailableError: its cause is the library's error.
    """
    prefix = f"{what}: " if what else ""
    try:
        yield
    except CONNECTION_ERRORS as error:
        raise_lost_cancellation()
        raise BrokerUnavailableError(prefix + (str(error) or type(error).__name__)) from error
    except asyncio.CancelledError as error:
        raise_lost_cancellation()
        raise BrokerUnavailableError(f"{prefix}the connection was closed") from error
    except Exception as error:
        raise_lost_cancellation()
        if type(error) is not Exception:
            raise
        raise BrokerUnavailableError(f"{prefix}the connection was closed") from error
    raise_lost_cancellation()


@contextlib.contextmanager
def ignore_connection_errors() -> Iterator[None]:
    """Ignore what closing a broken connection or channel raises: it is closed anyway."""
    with contextlib.suppress(*CONNECTION_ERRORS):
        yield
