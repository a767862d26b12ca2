"""The sender: POSTs as the provider does, and keeps the ledger.

The provider's rule: only a 200 within 10 s counts; after anything else the same postback is sent
again 5 minutes later, 5 times at most, then it is lost for good. Resends do not hold up the rest:
they wait in a heap and go first when their time has come.
"""

import asyncio
import heapq
import itertools
import logging
import random
import time
from array import array
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, NamedTuple

import aiohttp
import msgspec
from msgspec import Meta
from yarl import URL

from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Messages
from ingest.simulate.wording import MIXED, Wording, word
from shared.errors import UntrustedServerError
from shared.process import tls

LONGEST_ANSWER: Final = 65536
"""Bytes of an answer's body that are read; beyond it the connection is closed."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to send.

    Attributes:
        dialect: one of `wording.DIALECTS`, or `mixed`.
        concurrency: POSTs under way at once, each on its own connection.
        rate: POSTs a second; 0: as many as are answered.
        timeout: seconds that the provider waits for an answer.
        resend_after: seconds from a failure to the next try.
        resends: tries after the first.
        duplicates: share of postbacks that are sent twice though nothing is wrong.
        passthrough: share of postbacks that are followed by one of another origin, as when SMS and
            inbound traffic of the same account comes to the same URL.
        shuffle: send in random order over the whole run, instead of message by message.
        deadline: seconds after which to stop sending, and resending; None: never.
        authorization: the header of that name; empty: none.
        tls_ca: PEM file of who signs https:// servers; empty: the system's.
    """

    dialect: str = MIXED
    concurrency: Annotated[int, Meta(ge=1)] = 64
    rate: float = 0.0
    timeout: float = 10.0
    resend_after: float = 300.0
    resends: int = 5
    duplicates: float = 0.0
    passthrough: float = 0.0
    shuffle: bool = False
    deadline: float | None = None
    authorization: str = ""
    tls_ca: str = ""


async def send(
    urls: str | Sequence[str],
    messages: Messages,
    options: Options | None = None,
    *,
    ledger: Ledger | None = None,
    stop: asyncio.Event | None = None,
) -> Ledger:
    """Send all postbacks of these messages; return when each is answered 200 or given up.

    Args:
        urls: where to POST; several take turns, attempt by attempt.
        ledger: one to watch while it is filled; made here when None.
        stop: set it to send no more; what is under way is still awaited.

    Raises:
        UntrustedServerError: a server's certificate is not trusted; sending again would not help.
        SettingsError: `tls_ca` cannot be read.
    """
    options = options or Options()
    ledger = ledger or Ledger(messages.postbacks)
    targets = [URL(url) for url in ([urls] if isinstance(urls, str) else urls)]
    schedule = _Schedule(_jobs(messages, options), options.rate)
    ledger.began = time.time()
    headers = {"User-Agent": "mms-simulate"}
    if options.authorization:
        headers["Authorization"] = options.authorization
    async with aiohttp.ClientSession(
        # As many connections as there are workers.
        connector=aiohttp.TCPConnector(limit=0, ssl=tls.client_context(options.tls_ca)),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # each attempt has its own limit
        skip_auto_headers=("Content-Type", "Accept-Encoding"),
        headers=headers,
    ) as client:
        sender = _Sender(client, itertools.cycle(targets), messages, options, ledger)
        try:
            async with asyncio.TaskGroup() as tasks:
                stopping = _stop(schedule, stop or asyncio.Event(), options.deadline)
                watch = tasks.create_task(stopping)
                async with asyncio.TaskGroup() as workers:
                    for _ in range(options.concurrency):
                        workers.create_task(_work(schedule, sender))
                watch.cancel()
        finally:
            ledger.ended = time.time()
    return ledger


class _Post(NamedTuple):
    """One POST to be made. The smallest is due first.

    Attributes:
        due: when, on the event loop's clock; 0 at once.
        number: of the postback.
        copy: 0, or 1 for a duplicate, which is worded anew.
        resends: how often it was tried before.
    """

    due: float
    number: int
    copy: int
    resends: int = 0


def _jobs(messages: Messages, options: Options) -> Iterator[list[_Post]]:
    """What to send, in order. The POSTs of one job are made one after another.

    In order a job is a message with its duplicates at its end; shuffled it is a single POST.
    """
    dice = random.Random(messages.seed)  # noqa: S311
    if not options.shuffle:
        for message in messages:
            posts = [_Post(0.0, message.first + at, 0) for at in message.in_time()]
            again = [post for post in posts if dice.random() < options.duplicates]
            yield posts + [post._replace(copy=1) for post in again]
        return
    numbers = range(messages.postbacks)
    order = array("Q", (number << 1 for number in numbers))
    order.extend(number << 1 | 1 for number in numbers if dice.random() < options.duplicates)
    dice.shuffle(order)
    for each in order:
        yield [_Post(0.0, each >> 1, each & 1)]


_BURST: Final = 0.1
"""Seconds' worth of POSTs that may be made up for, so that the rate holds on the average."""


class _Schedule:
    """Hands out jobs: due resends first, then what is new, at the rate that is wanted."""

    def __init__(self, jobs: Iterator[list[_Post]], rate: float) -> None:
        self._resends: list[_Post] = []
        self._jobs = jobs
        self._under_way = 0
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()
        self._pause = 1.0 / rate if rate > 0 else 0.0
        self._next_at = 0.0
        self._pacing = asyncio.Lock()

    async def take(self) -> Sequence[_Post] | None:
        """The next job, when it is time for it; None when there will be none."""
        while not self._stopped.is_set():
            job = self._due() or next(self._jobs, None)
            if job is not None:
                self._under_way += 1
                return job
            if not (self._under_way or self._resends):
                self._changed.set()
                return None
            await self._wait()
        return None

    def done(self) -> None:
        """A job that was taken is finished, but for what goes to `again`."""
        self._under_way -= 1
        if not self._under_way:
            self._changed.set()

    def again(self, post: _Post) -> None:
        """Hand this POST out again when it is due."""
        heapq.heappush(self._resends, post)
        self._changed.set()

    async def paced(self) -> bool:
        """Wait for the next POST's turn; False when there is to be none."""
        if self._pause:
            async with self._pacing:
                now = asyncio.get_running_loop().time()
                # What was missed while nobody could send is not made up for in a burst.
                self._next_at = max(now - _BURST, self._next_at) + self._pause
                await _elapsed(self._next_at - now, self._stopped)
        return not self._stopped.is_set()

    def stop(self) -> None:
        self._stopped.set()
        self._changed.set()

    def _due(self) -> list[_Post] | None:
        if self._resends and self._resends[0].due <= asyncio.get_running_loop().time():
            return [heapq.heappop(self._resends)]
        return None

    async def _wait(self) -> None:
        """Until a resend is due, or something else has changed."""
        self._changed.clear()
        now = asyncio.get_running_loop().time()
        await _elapsed(self._resends[0].due - now if self._resends else None, self._changed)


async def _elapsed(seconds: float | None, sooner: asyncio.Event) -> None:
    """Return after so many seconds (None: never), or sooner when the event is set."""
    if seconds is not None and seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await sooner.wait()
    except TimeoutError:
        pass


async def _stop(schedule: _Schedule, stop: asyncio.Event, deadline: float | None) -> None:
    await _elapsed(deadline, stop)
    schedule.stop()


async def _work(schedule: _Schedule, sender: "_Sender") -> None:
    """One connection's work."""
    while (job := await schedule.take()) is not None:
        for post in job:
            if not await schedule.paced():
                if post.resends:
                    schedule.again(post)
                break
            if (again := await sender.post(post)) is not None:
                schedule.again(again)
            await sender.post_of_another_origin(post)
        schedule.done()


class _Sender:
    """Makes one POST and enters it in the ledger."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        targets: Iterator[URL],
        messages: Messages,
        options: Options,
        ledger: Ledger,
    ) -> None:
        self._client = client
        self._targets = targets
        self._messages = messages
        self._options = options
        self._ledger = ledger
        self._random = random.Random()  # noqa: S311

    async def post(self, post: _Post) -> _Post | None:
        """Try once; what is to be tried again later, if it failed and may be."""
        if post.resends:
            self._ledger.resent += 1
            self._ledger.waiting -= 1
        elif post.copy:
            self._ledger.duplicates += 1
        wording = self._word(post)
        started = time.perf_counter()  # finer than the event loop's clock
        result = await self._attempt(wording)
        if self._ledger.enter(post.number, result, time.perf_counter() - started):
            return None
        if post.resends >= self._options.resends:
            self._ledger.give_up(post.number)
            return None
        self._ledger.waiting += 1
        due = asyncio.get_running_loop().time() + self._options.resend_after
        return post._replace(due=due, resends=post.resends + 1)

    async def post_of_another_origin(self, after: _Post) -> None:
        """Once after some of the postbacks; what is not answered 200 is not tried again."""
        drawn = after.number * 2_654_435_761 % 2**32 / 2**32
        if after.copy or after.resends or drawn >= self._options.passthrough:
            return
        name = f"{self._messages.run}-other-{after.number}"
        fields = {"origin": "SMS_MO", "code": "S001", "tracking-id": name, "text": "STOP & more"}
        self._ledger.other_origins.setdefault(name, False)
        started = time.perf_counter()
        result = await self._attempt(word(fields, self._options.dialect, self._random))
        self._ledger.enter_other(name, result, time.perf_counter() - started)

    def _word(self, post: _Post) -> Wording:
        """A POST's words, the same each time it is resent."""
        message, at = self._messages.locate(post.number)
        self._random.seed(self._messages.seed << 64 | post.number << 1 | post.copy)
        return word(message.postbacks[at], self._options.dialect, self._random)

    async def _attempt(self, wording: Wording) -> str:
        headers = {"Content-Type": wording.content_type} if wording.content_type else None
        url = next(self._targets)
        try:
            async with (
                asyncio.timeout(self._options.timeout),
                self._client.post(
                    url, data=wording.body, headers=headers, allow_redirects=False
                ) as response,
            ):
                length = 0
                async for part in response.content.iter_any():
                    length += len(part)
                    if length > LONGEST_ANSWER:  # its status has been read; no memory for the rest
                        response.close()
                        break
                return str(response.status)
        except TimeoutError:
            return "timeout"
        except aiohttp.ClientConnectorCertificateError as error:
            raise UntrustedServerError(f"{error.host}:{error.port}: {_reason(error)}") from None
        except (aiohttp.ClientError, OSError) as error:
            if not self._ledger.posts:
                _log.warning("no connection to %s: %s", url.origin(), _reason(error))
            return "no connection"


def _reason(error: BaseException) -> str:
    """What went wrong below aiohttp, without the URL, which may have a token."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    detail = getattr(error, "verify_message", "") or getattr(error, "strerror", "")
    return str(detail or type(error).__name__)


_log: Final = logging.getLogger("mms-simulate")
