"""What a window came to, as it is counted."""

from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from shared.codes import Outcome, Track
from shared.errors import Reason
from shared.event import Event
from shared.record import Known
from workers import business, tally
from workers.emitter import DeadLetter, Untold
from workers.statuses import MOST, UnknownStatuses

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


def event(
    outcome: Outcome = Outcome.DELIVERED,
    *,
    track: Track = Track.MESSAGE,
    operator: str | None = "31003",
    sent_as: str | None = "MMS",
    corrects: Outcome | None = None,
    sent_at: str | None = "2026-11-24T10:00:00Z",
) -> Event:
    known = Known(
        tracking_id="T1",
        mms_id=None,
        outcome=outcome,
        code="N102",
        status=None,
        status_details=None,
        sent_as=sent_as,
        from_="28444",
        to="15550100001",
        operator_id=operator,
        operator_name=None,
        handset=None,
        client_reference=None,
        campaign_ref=None,
        aggregator_id=None,
        sent_at=sent_at,
        completed_at="2026-11-24T10:00:07.5Z",
        corrects=corrects,
    )
    return Event(f"mms.{track}.{outcome}", "/mms-postbacks/acme", "1", "", "T1", known)


def test_what_was_absorbed_is_new_duplicate_or_dead(counted: Counted) -> None:
    letter = DeadLetter(Reason.MALFORMED, "bad", "acme", 1, "", b"")
    results = {("N101", "new"): 3, ("N101", "duplicate"): 1, ("N102", "new"): 2}
    tally.count(Untold([], [letter, letter], 8, results))
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
        ("15550100001", "other", "pigeon", "other"),
    ],
)
def test_an_outcome_is_counted_by_operator_and_what_it_was_sent_as(
    counted: Counted,
    operator: str | None,
    operator_label: str,
    sent_as: str | None,
    sent_as_label: str,
) -> None:
    business.decided(event(operator=operator, sent_as=sent_as))
    labels = {"operator": operator_label, "sent_as": sent_as_label, "track": "message"}
    assert counted("mms_outcomes_total", **labels, outcome="delivered") == 1
    assert counted("mms_outcomes_corrected_total", **labels, outcome="delivered") == 0


def test_outcomes_less_corrections_is_where_messages_stand(counted: Counted) -> None:
    business.decided(event(Outcome.EXPIRED))
    business.decided(event(Outcome.DELIVERED, corrects=Outcome.EXPIRED))
    business.decided(event(Outcome.DELIVERED, corrects=Outcome.DELIVERED))  # a later postback
    labels = {"operator": "31003", "sent_as": "MMS", "track": "message"}
    standing = {
        outcome: counted("mms_outcomes_total", **labels, outcome=outcome)
        - counted("mms_outcomes_corrected_total", **labels, outcome=outcome)
        for outcome in ("expired", "delivered")
    }
    assert standing == {"expired": 0, "delivered": 1}
    assert counted("mms_delivery_seconds_count", operator="31003") == 1
    assert counted("mms_delivery_seconds_sum", operator="31003") == 7.5


@pytest.mark.parametrize(
    "other",
    [
        event(Outcome.EXPIRED),
        event(track=Track.DISCOVERY),
        event(sent_at=None),
    ],
    ids=["not delivered", "discovery", "when it was sent is not known"],
)
def test_only_a_delivered_message_has_a_delivery_time(counted: Counted, other: Event) -> None:
    business.decided(other)
    assert counted("mms_delivery_seconds_count", operator="31003") == 0


def test_no_label_holds_anything_of_one_message() -> None:
    business.decided(event())
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            assert not {"T1", "15550100001", "28444"} & set(sample.labels.values())


def test_an_unknown_status_is_counted_by_code_and_each_text_logged_once(
    counted: Counted, caplog: pytest.LogCaptureFixture
) -> None:
    held = ("N102", "Held for +1 555 010 0001")
    tally.count(Untold([], [], 3, unknown_statuses=[held, held, ("E102", "\x1b[2JWhy")]))
    assert counted("mms_unknown_status_total", code="N102") == 2
    assert counted("mms_unknown_status_total", code="E102") == 1
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "'Held for +# ### ### ####'",
        "'\\x1b[#JWhy'",
    ]


def test_only_so_many_unknown_texts_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    unknown = UnknownStatuses()
    for number in range(2 * MOST):
        unknown.count("N102", "word" + "x" * number)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) <= MOST + 1
    assert max(map(len, lines)) < 200
