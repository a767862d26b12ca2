"""Labels are few, whatever the provider sends."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter

from shared.process.metric_labels import OTHER, UNKNOWN, Bounded, Children


@given(st.lists(st.text(max_size=20) | st.integers(0, 10**15).map(str), max_size=60))
def test_only_so_many_values_become_labels_and_the_rest_is_other(texts: list[str]) -> None:
    bounded = Bounded(5)
    labels = [bounded(text) for text in texts]
    assert len(set(labels) - {OTHER}) <= 5
    for text, label in zip(texts, labels, strict=True):
        assert label in {text, OTHER}
        assert bounded(text) == label or label == OTHER


def test_what_is_known_stays_known_when_there_is_no_room_for_more() -> None:
    bounded = Bounded(2)
    assert [bounded(text) for text in ("31003", "310-4", "31005", "31003")] == [
        "31003",
        "310-4",
        OTHER,
        "31003",
    ]
    assert bounded(None) == UNKNOWN


def test_what_may_be_a_phone_number_is_no_label_and_takes_no_room() -> None:
    bounded = Bounded(1)
    numbers = ("15550100001", "+15550100001", "x15550100001", "5550100", "555-01-00", "1_555-010_0")
    assert {bounded(text) for text in (*numbers, "a b", "", "x" * 17, "é")} == {OTHER}
    assert bounded("31003") == "31003"


def test_a_child_is_the_metrics_own() -> None:
    registry = CollectorRegistry()
    children = Children(Counter("things", "Things", ["kind", "size"], registry=registry))
    children["a", "1"].inc()
    children["a", "1"].inc(2)
    assert registry.get_sample_value("things_total", {"kind": "a", "size": "1"}) == 3
    assert children["a", "1"] is children["a", "1"]
