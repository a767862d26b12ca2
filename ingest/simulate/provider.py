"""The simulated provider: POSTs postbacks as the real one does, and fills the ledger.

The provider's rule: only a 200 within 10 s counts as received. After any other result it sends the
same postback again 5 minutes later, at most 5 times. Then the postback is lost.
"""

import asyncio
import itertools
import time
from collections.abc import Sequence

import aiohttp
from yarl import URL

from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import Messages
from ingest.simulate.options import Options
from ingest.simulate.schedule import Schedule, jobs
from ingest.simulate.sender import Sender
from shared.process import tls


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
        stop: set it to send no more; POSTs in progress are still awaited.

    Raises:
        UntrustedServerError: a server's certificate is not trusted; a resend would not help.
        SettingsError: `tls_ca` cannot be read.
    """
    options = options or Options()
    ledger = ledger or Ledger(messages.postbacks)
    targets = [URL(url) for url in ([urls] if isinstance(urls, str) else urls)]
    schedule = Schedule(jobs(messages, options), options.rate)
    ledger.began = time.time()
    headers = {"User-Agent": "mms-simulate"}
    if options.authorization:
        headers["Authorization"] = options.authorization
    async with aiohttp.ClientSession(
        # `concurrency` limits the connections: each of its tasks uses one.
        connector=aiohttp.TCPConnector(limit=0, ssl=tls.client_context(options.tls_ca)),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),  # each attempt has a limit of its own
        skip_auto_headers=("Content-Type", "Accept-Encoding"),
        headers=headers,
    ) as client:
        sender = Sender(client, itertools.cycle(targets), messages, options, ledger)
        try:
            async with asyncio.TaskGroup() as tasks:
                stopping = tasks.create_task(
                    schedule.stop_after(options.deadline, stop or asyncio.Event())
                )
                async with asyncio.TaskGroup() as connections:
                    for _ in range(options.concurrency):
                        connections.create_task(_send_jobs(schedule, sender))
                stopping.cancel()
        finally:
            ledger.ended = time.time()
    return ledger


async def _send_jobs(schedule: Schedule, sender: Sender) -> None:
    """Take and send jobs on one connection, until there are no more."""
    while (job := await schedule.take()) is not None:
        for post in job:
            if not await schedule.paced():
                if post.resends:
                    schedule.resend(post)
                break
            if (failed := await sender.post(post)) is not None:
                schedule.resend(failed)
            await sender.post_of_another_origin(post)
        schedule.done()
