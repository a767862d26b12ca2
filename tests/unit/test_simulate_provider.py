"""The simulated provider and a real HTTP server: resend rule, order, duplicates, stop."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port

from ingest.simulate import provider
from ingest.simulate.lifecycles import Messages, generate
from ingest.simulate.options import Options
from shared.postback.normalise import decode

if TYPE_CHECKING:
    from shared.postback.postback import NormalisedPostback

Answer = Callable[[int], Awaitable[int]]


class Receiver:
    """Counts how often each postback came, and answers with the statuses of a function.

    Attributes:
        received: each request's postback, in order.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.received: list[NormalisedPostback] = []
        self.times: Counter[tuple[str, str]] = Counter()
        self.in_progress = self.most_in_progress = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        try:
            normalised = decode("default", await request.read())
            self.received.append(normalised)
            name = (normalised.key.id, normalised.rank.identity)
            self.times[name] += 1
            return web.Response(status=await self._answer(self.times[name]))
        finally:
            self.in_progress -= 1


async def at_once(_time: int) -> int:
    return 200


@contextlib.asynccontextmanager
async def receiver(answer: Answer = at_once) -> AsyncIterator[Receiver]:
    receiving = Receiver(answer)
    application = web.Application()
    application.router.add_post("/postbacks", receiving.handle)
    async with TestServer(application) as server:
        receiving.url = str(server.make_url("/postbacks"))
        yield receiving


def some(count: int = 20) -> Messages:
    return generate(count, seed=5, run="test")


async def test_each_postback_is_sent_once_when_each_is_answered_200() -> None:
    async def slowly(_time: int) -> int:
        await asyncio.sleep(0.01)
        return 200

    messages = some(100)
    async with receiver(slowly) as receiving:
        ledger = await provider.send(receiving.url, messages, Options(concurrency=8))
    assert len(receiving.times) == messages.postbacks
    assert set(receiving.times.values()) == {1}
    assert ledger.answered == ledger.sent == ledger.posts == messages.postbacks
    assert ledger.attempts == {"200": messages.postbacks}
    assert receiving.most_in_progress == 8


async def test_an_endless_response_is_not_read_to_its_end() -> None:
    """Otherwise it would fill the memory until the time limit."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        writer.close()

    messages = some(3)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        ledger = await provider.send(
            f"http://{host}:{port}/postbacks", messages, Options(timeout=5, resends=0)
        )
    assert ledger.attempts == {"200": messages.postbacks}


async def test_a_refused_postback_is_resent_until_it_is_answered_200() -> None:
    async def third_time(time: int) -> int:
        return 200 if time == 3 else 503

    messages = some()
    async with receiver(third_time) as receiving:
        options = Options(resend_after=0.05)
        ledger = await provider.send(receiving.url, messages, options)
    assert set(receiving.times.values()) == {3}
    assert ledger.attempts == {"503": 2 * messages.postbacks, "200": messages.postbacks}
    assert ledger.resent == 2 * messages.postbacks
    assert (ledger.given_up, ledger.waiting) == (0, 0)


async def test_another_2xx_status_counts_as_a_failure() -> None:
    async def accepted_first(time: int) -> int:
        return 200 if time == 2 else 202

    messages = some()
    async with receiver(accepted_first) as receiving:
        ledger = await provider.send(receiving.url, messages, Options(resend_after=0.01))
    assert ledger.attempts == {"202": messages.postbacks, "200": messages.postbacks}


async def test_a_postback_without_a_response_is_resent_after_the_timeout() -> None:
    async def hang_first(time: int) -> int:
        if time == 1:
            await asyncio.Event().wait()
        return 200

    messages = some(5)
    async with receiver(hang_first) as receiving:
        options = Options(timeout=1.0, resend_after=0.05)
        ledger = await provider.send(receiving.url, messages, options)
    assert ledger.attempts == {"timeout": messages.postbacks, "200": messages.postbacks}
    assert len(ledger.times) == messages.postbacks


async def test_a_postback_is_given_up_after_five_resends() -> None:
    async def never(_time: int) -> int:
        return 500

    messages = some()
    async with receiver(never) as receiving:
        ledger = await provider.send(receiving.url, messages, Options(resend_after=0.01))
    assert set(receiving.times.values()) == {6}
    assert ledger.given_up == messages.postbacks
    assert ledger.answered == 0


async def test_a_refused_connection_counts_as_a_failure() -> None:
    url = f"http://127.0.0.1:{unused_port()}/postbacks"
    ledger = await provider.send(url, some(3), Options(resend_after=0.01))
    assert set(ledger.attempts) == {"no connection"}
    assert ledger.given_up == ledger.sent


async def test_resends_do_not_delay_the_other_postbacks() -> None:
    first: list[int] = []

    async def first_refused(_time: int) -> int:
        first.append(1)
        return 503 if len(first) == 1 else 200

    messages = some(50)
    async with receiver(first_refused) as receiving:
        options = Options(concurrency=1, resend_after=0.5)
        await provider.send(receiving.url, messages, options)
    refused, next_one = receiving.received[:2]
    assert receiving.received.count(refused) == 2
    assert next_one != refused  # it did not wait for the resend


async def test_in_order_the_postbacks_of_a_message_are_sent_by_time() -> None:
    messages = some(100)
    async with receiver() as receiving:
        await provider.send(receiving.url, messages, Options(concurrency=16))
    for message in messages:
        codes = [f.postback.code for f in receiving.received if f.key.id == message.id]
        assert codes == [message.steps[at].code for at in message.in_time()]


async def test_shuffled_all_postbacks_are_sent_in_another_order() -> None:
    messages = some(100)
    async with receiver() as receiving:
        await provider.send(receiving.url, messages, Options(concurrency=1, shuffle=True))
    ids = [normalised.key.id for normalised in receiving.received]
    assert ids != sorted(ids)
    assert set(receiving.times.values()) == {1}
    assert len(receiving.times) == messages.postbacks


async def test_duplicates_repeat_the_same_postbacks() -> None:
    messages = some(300)
    for shuffle in (False, True):
        async with receiver() as receiving:
            options = Options(duplicates=0.2, shuffle=shuffle)
            ledger = await provider.send(receiving.url, messages, options)
        assert len(receiving.times) == messages.postbacks
        assert set(receiving.times.values()) == {1, 2}
        assert ledger.duplicates == ledger.posts - messages.postbacks
        assert 0.1 < ledger.duplicates / messages.postbacks < 0.3


async def test_the_rate_is_kept() -> None:
    messages = some(50)
    async with receiver() as receiving:
        ledger = await provider.send(receiving.url, messages, Options(rate=200.0))
    assert ledger.seconds > messages.postbacks / 200 - 0.11
    assert ledger.posts == messages.postbacks


async def test_several_urls_take_turns() -> None:
    messages = some(100)
    async with receiver() as one, receiver() as other:
        await provider.send([one.url, other.url], messages)
    assert abs(len(one.received) - len(other.received)) <= 1


async def test_a_stop_awaits_the_posts_in_progress() -> None:
    stop = asyncio.Event()

    async def stop_then_answer(_time: int) -> int:
        stop.set()
        await asyncio.sleep(0.05)
        return 200

    messages = some(200)
    async with receiver(stop_then_answer) as receiving:
        ledger = await provider.send(receiving.url, messages, Options(concurrency=4), stop=stop)
    assert 1 <= ledger.posts == ledger.answered <= 4


async def test_the_deadline_stops_resends_too() -> None:
    async def never(_time: int) -> int:
        return 503

    messages = some()
    async with receiver(never) as receiving:
        ledger = await provider.send(receiving.url, messages, Options(deadline=0.5))
    assert 0 < ledger.waiting == ledger.sent  # each is to be resent after 300 s
    assert ledger.given_up == 0
