"""A window's way through the worker: decode, merge, and collect what must be published.

The steps are `decode`, `merge` and `outbox`. The window is acknowledged after its outbox is
confirmed.
"""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from shared.postback import envelope
from shared.postback.dead_letter import DeadLetter
from shared.postback.envelope import Arrival
from shared.process.tracing import Tracing
from workers import metrics
from workers.consumer import Delivery
from workers.decode import Decoded, Passthrough, Read, decode_batch
from workers.merge import WindowResult, merge_window
from workers.outbox import Correlation, Outbox
from workers.store import Store
from workers.verdicts import Merged, Received, Verdict

log: Final = logging.getLogger(__name__)


async def process_window(
    store: Store, window: Sequence[Delivery], tracing: Tracing | None = None
) -> Outbox:
    """Bring a window's postbacks into the state.

    Processing a window again does not change the state. The outbox is the same again if the
    window's batches were redelivered.

    Returns:
        What must be published and confirmed before the window is acknowledged.

    Raises:
        StateUnavailableError: Redis stayed away longer than `merge.REDIS_WAIT_LIMIT`.
    """
    started = time.time_ns()
    decoded = _decode(window, envelope.decode if tracing is None else envelope.decode_traced)
    result = await merge_window(store, decoded.received)
    dead = decoded.dead + result.dead
    traces = {} if tracing is None else _trace(tracing, started, decoded, dead)
    _log_window(window, decoded.postbacks, len(result.due) + len(decoded.passthrough), len(dead))
    return Outbox(
        events=[event for event, _ in result.due],
        dead_letters=dead,
        postbacks=decoded.postbacks,
        results=_count_results(result.merged),
        correlations=_correlations(result, decoded.passthrough, traces),
        unknown_statuses=_unknown_statuses(decoded.received),
        passthrough=[event for event, _, _ in decoded.passthrough],
    )


def _decode(window: Sequence[Delivery], read: Read) -> Decoded:
    decoded = Decoded([], [], [])
    now = time.time()
    for delivery in window:
        metrics.BATCHES["redelivered" if delivery.redelivered else "first",].inc()
        arrivals = decode_batch(delivery, decoded, read)
        if arrivals is None:
            continue
        metrics.BATCH_SIZE.observe(len(arrivals))
        if arrivals:
            metrics.LAG.observe(max(0.0, now - arrivals[0].received_at / 1_000_000))
    return decoded


def _trace(
    tracing: Tracing, started: int, decoded: Decoded, dead: Sequence[DeadLetter]
) -> dict[Arrival, str]:
    """Report the spans of the window's postbacks.

    Returns:
        The `traceparent` for the event of each arrival.
    """
    for dead_letter in dead:
        attributes = {
            "mms.source": dead_letter.source,
            "mms.dead_letter": str(dead_letter.reason),
        }
        tracing.processed(dead_letter.traceparent, started, attributes)
    traces: dict[Arrival, str] = {}
    for arrival, normalised, _, batch_id in decoded.received:
        attributes = {
            "mms.source": arrival.source,
            "mms.code": normalised.postback.code,
            "messaging.message.id": batch_id,
        }
        traces[arrival] = tracing.processed(envelope.traceparent(arrival), started, attributes)
    for event, arrival, batch_id in decoded.passthrough:
        attributes = {
            "mms.source": arrival.source,
            "mms.event": event.type,
            "messaging.message.id": batch_id,
        }
        traces[arrival] = tracing.processed(envelope.traceparent(arrival), started, attributes)
    return traces


def _log_window(window: Sequence[Delivery], postbacks: int, events: int, dead: int) -> None:
    """At DEBUG, log one line for all batches of a window, with their ids."""
    if log.isEnabledFor(logging.DEBUG):
        counts = {
            "batch": ",".join(delivery.batch_id for delivery in window),
            "postbacks": postbacks,
            "events": events,
            "dead": dead,
        }
        log.debug(
            "batch %(batch)s: %(postbacks)d postbacks, %(events)d events, %(dead)d dead letters",
            counts,
            extra=counts,
        )


def _count_results(merged: Sequence[Merged]) -> Counter[tuple[str, str]]:
    """How many postbacks were new and how many were duplicates, by code."""
    return Counter(
        (
            received.normalised.postback.code,
            "new" if verdict is Verdict.NEW else "duplicate",
        )
        for each in merged
        for verdict, received in zip(each.verdicts, each.received, strict=True)
    )


def _correlations(
    result: WindowResult, passthrough: Sequence[Passthrough], traces: dict[Arrival, str]
) -> dict[str, Correlation]:
    """The batch, the trace and the postback of each event, by the event's id."""
    correlations = {
        event.id: Correlation(last.batch_id, traces.get(last.arrival, ""), last.arrival)
        for event, last in result.due
    }
    for event, arrival, batch_id in passthrough:
        correlations[event.id] = Correlation(batch_id, traces.get(arrival, ""), arrival)
    return correlations


def _unknown_statuses(received: Sequence[Received]) -> list[tuple[str, str]]:
    """Code and status text of each postback whose status text is in no table."""
    return [
        (each.normalised.postback.code, each.normalised.postback.status or "")
        for each in received
        if each.normalised.unknown_status
    ]
