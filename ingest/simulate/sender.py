"""One POST to the ingress: its wording, its result, and its entry in the ledger."""

import asyncio
import logging
import random
import time
from collections.abc import Iterator
from typing import Final

import aiohttp
from yarl import URL

from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Messages
from ingest.simulate.options import Options
from ingest.simulate.schedule import Post
from ingest.simulate.wording import Wording, word
from shared.errors import UntrustedServerError

MAX_RESPONSE_BYTES: Final = 65536
"""A longer body of a response is not read to its end; its connection is closed."""


class Sender:
    """Makes POSTs and enters their results in the ledger.

    Args:
        targets: the URLs, which take turns.
    """

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

    async def post(self, post: Post) -> Post | None:
        """Make one attempt; the resend to make later if it failed and resends are left."""
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

    async def post_of_another_origin(self, after: Post) -> None:
        """Send one after a share of the postbacks; one that is not answered 200 is not resent."""
        drawn = after.number * 2_654_435_761 % 2**32 / 2**32
        if after.copy or after.resends or drawn >= self._options.passthrough:
            return
        name = f"{self._messages.run}-other-{after.number}"
        fields = {"origin": "SMS_MO", "code": "S001", "tracking-id": name, "text": "STOP & more"}
        self._ledger.other_origins.setdefault(name, False)
        started = time.perf_counter()
        result = await self._attempt(word(fields, self._options.dialect, self._random))
        self._ledger.enter_other(name, result, time.perf_counter() - started)

    def _word(self, post: Post) -> Wording:
        """The POST's body and Content-Type, the same each time it is resent."""
        message, at = self._messages.locate(post.number)
        self._random.seed(self._messages.seed << 64 | post.number << 1 | post.copy)
        return word(message.postbacks[at], self._options.dialect, self._random)

    async def _attempt(self, wording: Wording) -> str:
        """The status of the response, `timeout` or `no connection`.

        Raises:
            UntrustedServerError: the server's certificate is not trusted.
        """
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
                    if length > MAX_RESPONSE_BYTES:  # the status is known; the rest needs no memory
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
    """The cause below aiohttp, without the URL, which may contain a token."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    detail = getattr(error, "verify_message", "") or getattr(error, "strerror", "")
    return str(detail or type(error).__name__)


_log: Final = logging.getLogger("mms-simulate")
