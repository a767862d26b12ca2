"""Password checks, one at a time in a thread, in a fair order.

Addresses take turns. Addresses that sent fewer wrong passwords come first, so a client that guesses
passwords does not delay others, however many addresses it uses. The same order holds for the
connections of one address. When the queue is full, the check with the most wrong passwords behind
it is refused. So guessing slows down only the client that guesses.
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

_MAX_COUNTED: Final = 4096
"""Connections, and addresses, whose wrong passwords are counted."""

_QUEUE_FULL: Final = "too many passwords wait to be checked"

_thread: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="password")


class Client(NamedTuple):
    """The client that sent a password.

    Attributes:
        address: see `client_address.client_network`; empty when it is unknown.
        connection: identifies the connection; empty for a proxy's, which many clients share.
    """

    address: str = ""
    connection: str = ""


class _Check(NamedTuple):
    """One check that waits; the smallest is next."""

    failures: int
    number: int
    client: Client
    run: Callable[[], bool]
    result: asyncio.Future[bool]


class PasswordChecks:
    """The password checks of one source."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, list[_Check]] = OrderedDict()
        self._by_address = _FailureCounts()
        self._by_connection = _FailureCounts()
        self._numbers = itertools.count()
        self._running = False

    def submit(self, client: Client, run: Callable[[], bool]) -> asyncio.Future[bool]:
        """Call `run` in the thread when it is this client's turn.

        Raises:
            OverloadedError: too many checks wait. The future raises it too, when this check is
                removed for one of an address or a connection with fewer failures.
        """
        failures = self._by_connection.count(client.connection)
        result = asyncio.get_running_loop().create_future()
        check = _Check(failures, next(self._numbers), client, run, result)
        queue = self._waiting.get(client.address)
        if queue is None:
            if len(self._waiting) >= MAX_ADDRESSES:
                self._remove_worst_address(client.address)
            queue = self._waiting[client.address] = []
        elif len(queue) >= MAX_WAITING:
            self._remove_worst_check(queue, check)
        queue.append(check)
        self._start_next()
        return result

    def _remove_worst_address(self, newcomer: str) -> None:
        """Raises: OverloadedError: no address has more failures than the newcomer."""
        worst = max(self._waiting, key=self._by_address.count)
        if self._by_address.count(worst) <= self._by_address.count(newcomer):
            raise OverloadedError(_QUEUE_FULL)
        for check in self._waiting.pop(worst):
            _refuse(check)

    def _remove_worst_check(self, queue: list[_Check], newcomer: _Check) -> None:
        """Raises: OverloadedError: no check in the queue has more failures than the newcomer."""
        worst = max(queue)
        if worst.failures <= newcomer.failures:
            raise OverloadedError(_QUEUE_FULL)
        queue.remove(worst)
        _refuse(worst)

    def _start_next(self) -> None:
        if self._running or not self._waiting:
            return
        address = min(self._waiting, key=self._by_address.count)  # the first of equal ones
        queue = self._waiting.pop(address)
        check = min(queue)
        queue.remove(check)
        if queue:
            self._waiting[address] = queue  # behind the other addresses
        self._running = True
        running = asyncio.get_running_loop().run_in_executor(_thread, check.run)
        running.add_done_callback(functools.partial(self._finish, check))

    def _finish(self, check: _Check, running: asyncio.Future[bool]) -> None:
        self._running = False
        if not running.cancelled() and running.exception() is None and not running.result():
            self._by_address.add(check.client.address)
            self._by_connection.add(check.client.connection)
        self._start_next()
        if check.result.done():
            return
        if running.cancelled():
            check.result.cancel()
        elif (error := running.exception()) is not None:
            check.result.set_exception(error)
        else:
            check.result.set_result(running.result())


class _FailureCounts:
    """Wrong passwords by connection or by address, of the latest that sent one."""

    def __init__(self) -> None:
        self._counts: OrderedDict[str, int] = OrderedDict()

    def count(self, name: str) -> int:
        return self._counts.get(name, 0)

    def add(self, name: str) -> None:
        if not name:  # the sender is unknown
            return
        self._counts[name] = self._counts.pop(name, 0) + 1
        if len(self._counts) > _MAX_COUNTED:
            self._counts.popitem(last=False)


def _refuse(check: _Check) -> None:
    if not check.result.done():
        check.result.set_exception(OverloadedError(_QUEUE_FULL))
