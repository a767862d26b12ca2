"""Password checks, one at a time in a thread, in a fair order.

Addresses take turns, and those that sent fewer wrong credentials come first, so whoever guesses
does not hold up others, however many addresses they have. Within an address the same holds for its
connections. Where too many wait, the one with the most wrong credentials is refused. So guessing
slows down guessing.
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

_COUNTED: Final = 4096
"""Connections, and addresses, whose wrong credentials are counted."""

_thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="login")


class Sender(NamedTuple):
    """Who wants a check.

    Attributes:
        address: where it comes from; empty if that is not known. See `address.owner`.
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
        self._by_address = _Failures()
        self._by_connection = _Failures()
        self._numbers = itertools.count()
        self._running = False

    def wait(self, sender: Sender, run: Callable[[], bool]) -> asyncio.Future[bool]:
        """Have `run` called in the thread when it is this sender's turn.

        Raises:
            OverloadedError: too many wait. The future raises it too, when this check has to make
                room for one of an address or a connection with fewer failures.
        """
        failures = self._by_connection.of(sender.connection)
        verdict = asyncio.get_running_loop().create_future()
        check = _Check(failures, next(self._numbers), sender, run, verdict)
        line = self._waiting.get(sender.address)
        if line is None:
            if len(self._waiting) >= MAX_ADDRESSES:
                self._make_room_for(sender.address)
            line = self._waiting[sender.address] = []
        elif len(line) >= MAX_WAITING:
            self._make_room(line, check)
        line.append(check)
        self._next()
        return verdict

    def _make_room_for(self, address: str) -> None:
        worst = max(self._waiting, key=self._by_address.of)
        if self._by_address.of(worst) <= self._by_address.of(address):
            raise OverloadedError(_TOO_MANY)
        for each in self._waiting.pop(worst):
            _refuse(each)

    def _make_room(self, line: list[_Check], check: _Check) -> None:
        last = max(line)
        if last.failures <= check.failures:
            raise OverloadedError(_TOO_MANY)
        line.remove(last)
        _refuse(last)

    def _next(self) -> None:
        if self._running or not self._waiting:
            return
        address = min(self._waiting, key=self._by_address.of)  # of equal ones the first
        line = self._waiting.pop(address)
        check = min(line)
        line.remove(check)
        if line:
            self._waiting[address] = line  # behind the other addresses
        self._running = True
        running = asyncio.get_running_loop().run_in_executor(_thread, check.run)
        running.add_done_callback(functools.partial(self._done, check))

    def _done(self, check: _Check, running: asyncio.Future[bool]) -> None:
        self._running = False
        if not running.cancelled() and running.exception() is None:
            self._note(check.sender, failed=not running.result())
        self._next()
        if check.verdict.done():
            return
        if running.cancelled():
            check.verdict.cancel()
        elif (error := running.exception()) is not None:
            check.verdict.set_exception(error)
        else:
            check.verdict.set_result(running.result())

    def _note(self, sender: Sender, *, failed: bool) -> None:
        if failed:
            self._by_address.add(sender.address)
            self._by_connection.add(sender.connection)


class _Failures:
    """Wrong credentials by connection or by address, of those that sent some last."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def of(self, name: str) -> int:
        return self._counts.get(name, 0)

    def add(self, name: str) -> None:
        if not name:  # it is not known whose they are
            return
        self._counts[name] = self._counts.pop(name, 0) + 1
        if len(self._counts) > _COUNTED:
            self._counts.popitem(last=False)


def _refuse(check: _Check) -> None:
    if not check.verdict.done():
        check.verdict.set_exception(OverloadedError(_TOO_MANY))


_TOO_MANY: Final = "too many passwords wait to be checked"
