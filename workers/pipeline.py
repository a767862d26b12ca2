"""One window's way into the state: decode, merge, and find what has to be told of it."""

import asyncio
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from shared.backoff import backoff
from shared.errors import OtherOriginError, StateUnavailableError, UndecodableError
from shared.postback import envelope
from shared.postback.codes import Track
from shared.postback.dead_letter import DeadLetter, Reason, dead_letter_of, unreadable_batch
from shared.postback.envelope import Arrival
from shared.postback.event import Event
from shared.postback.normalise import decode
from shared.postback.passthrough import PassthroughEvent, passthrough_of
from shared.process.tracing import Tracing
from shared.rate_limited_log import RateLimitedLog
from workers import metrics, outcome_metrics
from workers.consumer import Delivery
from workers.outbox import Correlation, Outbox, dead_letters_of
from workers.store import Merged, Received, Store, Unmergeable
from workers.verdicts import due_events

REDIS_WAIT_LIMIT: Final = 10.0
"""Seconds to wait for Redis with batches in hand before they are given back."""

log: Final = logging.getLogger(__name__)
_limited_log: Final = RateLimitedLog(log)


async def process_window(
    store: Store, window: Sequence[Delivery], tracing: Tracing | None = None
) -> Outbox:
    """Bring a window's postbacks into the state; what has to be told before it is acknowledged.

    Absorbing a window again changes nothing, and what there is to tell of it is the same when its
    batches were redelivered.

    Raises:
        StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`.
    """
    started = time.time_ns()
    received, dead, passed = _decode(
        window, envelope.decode if tracing is None else envelope.decode_traced
    )
    postbacks = len(received) + len(dead) + len(passed)
    merged, due, failed = await _change(store, received)
    dead += failed
    traces = {} if tracing is None else _trace(tracing, started, received, dead, passed)
    events = [event for event, _ in due]
    correlations = {
        event.id: Correlation(last.batch, traces.get(last.arrival, ""), last.arrival)
        for event, last in due
    }
    for each in passed:
        correlations[each.event.id] = Correlation(
            each.batch, traces.get(each.arrival, ""), each.arrival
        )
    results = Counter(each for one in merged for each in _results(one))
    _log_window(window, postbacks, len(events) + len(passed), len(dead))
    unknown = [
        (each.normalised.postback.code, each.normalised.postback.status or "")
        for each in received
        if each.normalised.unknown_status
    ]
    passthrough = [each.event for each in passed]
    return Outbox(events, dead, postbacks, results, correlations, unknown, passthrough)


class _Passed(NamedTuple):
    """A postback of another origin: what is published of it, and what that came of."""

    event: PassthroughEvent
    arrival: Arrival
    batch: str


class _Decoded(NamedTuple):
    """What the postbacks of a window are."""

    received: list[Received]
    dead: list[DeadLetter]
    passed: list[_Passed]


def _decode(window: Iterable[Delivery], read: Callable[[bytes], Sequence[Arrival]]) -> _Decoded:
    """Each postback by itself: a bad one goes to the dead letters alone."""
    decoded = received, dead, passed = _Decoded([], [], [])
    now = time.time()
    for delivery in window:
        metrics.BATCHES["redelivered" if delivery.redelivered else "first",].inc()
        try:
            batch = read(delivery.body)
        except msgspec.DecodeError as error:
            dead.append(
                unreadable_batch(
                    delivery.body, delivery.content_type, str(error), delivery.batch_id
                )
            )
            continue
        for arrival in batch:
            try:
                try:
                    normalised = decode(arrival.source, arrival.body)
                except OtherOriginError as other:
                    event = passthrough_of(arrival, other.fields)
                    passed.append(_Passed(event, arrival, delivery.batch_id))
                    continue
            except UndecodableError as error:
                dead.append(dead_letter_of(arrival, error.reason, str(error), delivery.batch_id))
            except Exception as error:  # noqa: BLE001 - nothing but this body can be the cause
                dead.append(_failed(arrival, delivery.batch_id, error))
            else:
                received.append(
                    Received(arrival, normalised, delivery.redelivered, delivery.batch_id)
                )
        metrics.BATCH_SIZE.observe(len(batch))
        if batch:
            metrics.LAG.observe(max(0.0, now - batch[0].received_at / 1_000_000))
    return decoded


class _Changed(NamedTuple):
    merged: list[Merged]
    due: list[tuple[Event, Received]]
    dead: list[DeadLetter]


async def _change(store: Store, received: Sequence[Received]) -> _Changed:
    """Merge, and find the events that are due; what fails for a reason of its own is found alone.

    An error that is not Redis's absence would happen again. The window is halved until the
    postbacks that cause it are alone; they become dead letters, and all others go on.

    Raises:
        StateUnavailableError: Redis stayed away longer than `REDIS_WAIT_LIMIT`.
    """
    try:
        return _changed(await _merge(store, received))
    except StateUnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - the cause is in one of these postbacks
        if len(received) == 1:
            (only,) = received
            return _Changed([], [], [_failed(only.arrival, only.batch, error)])
    # What is in the state by now is a duplicate; its events are due all the same.
    received = [each._replace(redelivered=True) for each in received]
    half = len(received) // 2
    first = await _change(store, received[:half])
    second = await _change(store, received[half:])
    return _Changed(first.merged + second.merged, first.due + second.due, first.dead + second.dead)


def _changed(results: Sequence[Merged | Unmergeable]) -> _Changed:
    merged = [one for one in results if isinstance(one, Merged)]
    refused = [one for one in results if isinstance(one, Unmergeable)]
    due: list[tuple[Event, Received]] = []
    for one in merged:
        for event, last in due_events(one):
            due.append((event, last))
            _count_outcome(one, event, last.normalised.track)
    return _Changed(merged, due, [each for one in refused for each in dead_letters_of(one)])


def _count_outcome(merged: Merged, event: Event, track: Track) -> None:
    """Count an outcome if this merge has changed it: if what decides the track now is new."""
    new = {
        str(received.normalised.rank)
        for result, received in zip(merged.results, merged.received, strict=True)
        if result in "nN"
    }
    if event.sequence not in new or merged.record is None:
        return
    before = next((e for e in merged.record.of(track) if str(e.rank) not in new), None)
    terminal = before is not None and before.rank.terminal
    outcome_metrics.count(merged.record, track, before.postback if before and terminal else None)


def _failed(arrival: Arrival, batch: str, error: Exception) -> DeadLetter:
    """A postback that could not be processed for a reason of its own: a defect of ours."""
    metrics.FAILED.inc()
    kind = type(error).__name__
    # Its text and its traceback could hold a part of the postback.
    place = traceback.extract_tb(error.__traceback__)[-1:]
    where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in place)
    _limited_log.warning(kind, "a postback failed with %s at %s; it is a dead letter", kind, where)
    return dead_letter_of(
        arrival, Reason.UNDELIVERABLE, f"processing it failed: {kind} at {where}", batch
    )


async def _merge(store: Store, received: Sequence[Received]) -> list[Merged | Unmergeable]:
    """Merge, and while Redis is away wait for it, but not for ever."""
    deadline = asyncio.get_running_loop().time() + REDIS_WAIT_LIMIT
    attempt = 0
    while received:
        try:
            with metrics.REDIS_TIME.time():
                return await store.merge(received)
        except StateUnavailableError as error:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            if attempt == 0:
                log.warning("waiting for Redis: %s", error)
            # Redis may have done part of it before it failed: what is no longer new then is told
            # of all the same, as when a batch is redelivered.
            received = [each._replace(redelivered=True) for each in received]
            await backoff(attempt, longest=2.0)
            attempt += 1
    return []


def _trace(
    tracing: Tracing,
    started: int,
    received: Sequence[Received],
    dead: Sequence[DeadLetter],
    passed: Sequence[_Passed],
) -> dict[Arrival, str]:
    """Tell of what is traced; the `traceparent` of each arrival, for what comes of it."""
    for letter in dead:
        told = {"mms.source": letter.source, "mms.dead_letter": str(letter.reason)}
        tracing.processed(letter.traceparent, started, told)
    traces: dict[Arrival, str] = {}
    for arrival, normalised, _, batch in received:
        told = {
            "mms.source": arrival.source,
            "mms.code": normalised.postback.code,
            "messaging.message.id": batch,
        }
        traces[arrival] = tracing.processed(envelope.traceparent(arrival), started, told)
    for event, arrival, batch in passed:
        told = {
            "mms.source": arrival.source,
            "mms.event": event.type,
            "messaging.message.id": batch,
        }
        traces[arrival] = tracing.processed(envelope.traceparent(arrival), started, told)
    return traces


def _log_window(window: Sequence[Delivery], postbacks: int, events: int, dead: int) -> None:
    """One line for all batches of a window, with their ids, when somebody reads it."""
    if log.isEnabledFor(logging.DEBUG):
        known = {
            "batch": ",".join(delivery.batch_id for delivery in window),
            "postbacks": postbacks,
            "events": events,
            "dead": dead,
        }
        log.debug(
            "batch %(batch)s: %(postbacks)d postbacks, %(events)d events, %(dead)d dead letters",
            known,
            extra=known,
        )


def _results(merged: Merged) -> Iterator[tuple[str, str]]:
    """Each postback's code, and whether it was new."""
    for letter, received in zip(merged.results, merged.received, strict=True):
        yield received.normalised.postback.code, "new" if letter in "nN" else "duplicate"
