"""Password checks, one at a time in a thread, in a fair order.

Addresses take turns, so one that guesses does not hold up another. Within an address a connection
whose credentials were wrong comes after one whose were not, and it is the one that is refused
where too many wait. So guessing slows down guessing.
"""

import asyncio
import functools
import itertools
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

from shared.errors import OverloadedError

MAX_WAITING: Final = 16
"""Checks that may wait, for each source and address."""

MAX_ADDRESSES: Final = 256
"""Addresses whose checks may wait, for each source."""

_CONNECTIONS: Final = 4096
"""Connections whose wrong credentials are counted."""

_thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="login")


class Sender(NamedTuple):
    """Who wants a check.

    Attributes:
        address: where it comes from; empty if that is not known.
        connection: what tells its connection from others; empty: a proxy's, which many share.
    """

    address: str = ""
    connection: str = ""


class _Check(NamedTuple):
    """One check that waits; the smallest is next."""

    failures: int
    number: int
    sender: Sender
    run: Callable[[], bool]
    verdict: asyncio.Future[bool]


class Checks:
    """The checks of one source."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, list[_Check]] = OrderedDict()
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._numbers = itertools.count()
        self._running = False

    def wait(self, sender: Sender, run: Callable[[], bool]) -> asyncio.Future[bool]:
        """Have `run` called in the thread when it is this sender's turn.

        Raises:
            OverloadedError: too many wait. The future raises it too, when this check has to make
                room for one of a connection with fewer failures.
        """
        failures = self._failures.get(sender.connection, 0)
        verdict = asyncio.get_running_loop().create_future()
        check = _Check(failures, next(self._numbers), sender, run, verdict)
        line = self._waiting.get(sender.address)
        if line is None:
            if len(self._waiting) >= MAX_ADDRESSES:
                raise OverloadedError(_TOO_MANY)
            line = self._waiting[sender.address] = []
        elif len(line) >= MAX_WAITING:
            self._make_room(line, check)
        line.append(check)
        self._next()
        return verdict

    def _make_room(self, line: list[_Check], check: _Check) -> None:
        last = max(line)
        if last.failures <= check.failures:
            raise OverloadedError(_TOO_MANY)
        line.remove(last)
        if not last.verdict.done():
            last.verdict.set_exception(OverloadedError(_TOO_MANY))

    def _next(self) -> None:
        if self._running or not self._waiting:
            return
        address, line = self._waiting.popitem(last=False)
        check = min(line)
        line.remove(check)
        if line:
            self._waiting[address] = line  # behind the other addresses
        self._running = True
        running = asyncio.get_running_loop().run_in_executor(_thread, check.run)
        running.add_done_callback(functools.partial(self._done, check))

    def _done(self, check: _Check, running: asyncio.Future[bool]) -> None:
        self._running = False
        self._next()
        if check.verdict.done():
            return
        if running.cancelled():
            check.verdict.cancel()
        elif (error := running.exception()) is not None:
            check.verdict.set_exception(error)
        else:
            self._note(check.sender.connection, failed=not running.result())
            check.verdict.set_result(running.result())

    def _note(self, connection: str, *, failed: bool) -> None:
        if failed and connection:
            self._failures[connection] = self._failures.pop(connection, 0) + 1
            if len(self._failures) > _CONNECTIONS:
                self._failures.popitem(last=False)


_TOO_MANY: Final = "too many passwords wait to be checked"
