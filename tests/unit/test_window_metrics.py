"""The counters of acknowledged windows and of outcomes."""

from collections.abc import Callable
from typing import Final

import pytest
from prometheus_client import REGISTRY

from shared.postback.codes import Track, phase_of
from shared.postback.dead_letter import DeadLetter, Reason
from shared.postback.postback import Key, Postback, Rank
from shared.postback.record import Entry, Record
from workers import outcome_metrics, window_metrics
from workers.outbox import Outbox
from workers.unknown_statuses import MAX_LOGGED, UnknownStatuses

Counted = Callable[..., float]


@pytest.fixture
def counted() -> Counted:
    """How much a sample has grown since the test began."""
    before = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
    }

    def grown(name: str, **labels: str) -> float:
        value = REGISTRY.get_sample_value(name, labels) or 0.0
        return value - before.get((name, *sorted(labels.items())), 0.0)

    return grown


SENT: Final = Postback("N101", "Sent", timestamp="2026-11-24T10:00:00Z")


def record(*postbacks: Postback, track: Track = Track.MESSAGE) -> Record:
    """A record in which the last postback decides."""
    entries = []
    for second, postback in enumerate(postbacks):
        phase = phase_of(track, postback.outcome)
        rank = Rank(phase, f"20261124100000{second * 750_000:06}", f"{second:024}")
        entries.append(Entry(track, rank, 1, postback))
    return Record(Key("message", "acme", "T1"), tuple(entries))


def delivered(operator: str | None = "31003", sent_as: str | None = "MMS") -> Postback:
    return Postback("N102", "Delivered", sent_as=sent_as, to="15550100001", operator_id=operator)


EXPIRED: Final = Postback("N102", "Expired", sent_as="MMS", operator_id="31003")


def test_an_acknowledged_postback_is_new_duplicate_or_dead(counted: Counted) -> None:
    dead_letter = DeadLetter(Reason.MALFORMED, "bad", "acme", 1, "", b"")
    results = {("N101", "new"): 3, ("N101", "duplicate"): 1, ("N102", "new"): 2}
    window_metrics.count(Outbox([], [dead_letter, dead_letter], 8, results))
    assert counted("mms_worker_absorbed_total") == 8
    assert counted("mms_worker_postbacks_total", code="N101", result="new") == 3
    assert counted("mms_worker_postbacks_total", code="N101", result="duplicate") == 1
    assert counted("mms_worker_postbacks_total", code="N102", result="new") == 2
    assert counted("mms_worker_dead_letters_total", reason="malformed") == 2


@pytest.mark.parametrize(
    ("operator", "operator_label", "sent_as", "sent_as_label"),
    [
        ("31003", "31003", "MMS", "MMS"),
        ("31003", "31003", "sms", "SMS"),
        (None, "unknown", None, "unknown"),
        ("0001470", "0001470", "MMS", "MMS"),
        ("5550147", "other", "MMS", "MMS"),
        ("15550100001", "other", "pigeon", "other"),
    ],
)
def test_an_outcome_is_counted_by_operator_and_sent_as(
    counted: Counted,
    operator: str | None,
    operator_label: str,
    sent_as: str | None,
    sent_as_label: str,
) -> None:
    outcome_metrics.count(record(delivered(operator, sent_as)), Track.MESSAGE, None)
    labels = {"operator": operator_label, "sent_as": sent_as_label, "track": "message"}
    assert counted("mms_outcomes_total", **labels, outcome="delivered") == 1
    assert counted("mms_outcomes_corrected_total", **labels, outcome="delivered") == 0


def test_outcomes_minus_corrections_is_the_present_number(counted: Counted) -> None:
    outcome_metrics.count(record(SENT, EXPIRED), Track.MESSAGE, None)
    outcome_metrics.count(record(SENT, delivered()), Track.MESSAGE, EXPIRED)
    outcome_metrics.count(record(SENT, delivered()), Track.MESSAGE, delivered())  # a later postback
    labels = {"operator": "31003", "sent_as": "MMS", "track": "message"}
    present = {
        outcome: counted("mms_outcomes_total", **labels, outcome=outcome)
        - counted("mms_outcomes_corrected_total", **labels, outcome=outcome)
        for outcome in ("expired", "delivered")
    }
    assert present == {"expired": 0, "delivered": 1}
    assert counted("mms_delivery_seconds_count", operator="31003") == 1
    assert counted("mms_delivery_seconds_sum", operator="31003") == 0.75


@pytest.mark.parametrize(
    ("now", "track"),
    [
        (record(SENT, EXPIRED), Track.MESSAGE),
        (record(SENT, delivered(), track=Track.DISCOVERY), Track.DISCOVERY),
        (record(delivered()), Track.MESSAGE),
    ],
    ids=["not delivered", "discovery", "time of sending is not known"],
)
def test_only_a_delivered_message_has_a_delivery_time(
    counted: Counted, now: Record, track: Track
) -> None:
    outcome_metrics.count(now, track, None)
    assert counted("mms_delivery_seconds_count", operator="31003") == 0


def test_no_label_identifies_a_message() -> None:
    outcome_metrics.count(record(SENT, delivered()), Track.MESSAGE, None)
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            assert not {"T1", "15550100001", "28444"} & set(sample.labels.values())


def test_an_unknown_status_is_counted_by_code_and_each_text_logged_once(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    held = ("N102", "Held for +1 555 010 0001")
    window_metrics.count(Outbox([], [], 3, unknown_statuses=[held, held, ("E102", "\x1b[2JWhy")]))
    assert counted("mms_unknown_status_total", code="N102") == 2
    assert counted("mms_unknown_status_total", code="E102") == 1
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "'Held for +# ### ### ####'",
        "'\\x1b[#JWhy'",
    ]


def test_the_number_of_logged_unknown_texts_is_limited(caplog: pytest.LogCaptureFixture) -> None:
    unknown = UnknownStatuses()
    for number in range(2 * MAX_LOGGED):  # an x for each: digits are not logged
        unknown.count(
            "N102", chr(ord("\N{LATIN CAPITAL LETTER A WITH MACRON}") + number) + "x" * 900
        )
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == MAX_LOGGED + 1
    assert max(map(len, lines)) < 200
