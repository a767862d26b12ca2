"""The ledger's figures."""

from ingest.simulate.ledger import Ledger


def test_percentiles_are_measured_response_times() -> None:
    ledger = Ledger(100)
    for number in reversed(range(100)):
        ledger.enter(number, "200", (number + 1) / 1000)
    assert ledger.percentiles(0.5, 0.95, 0.99, 1.0) == [0.05, 0.095, 0.099, 0.1]


def test_percentiles_of_nothing_are_zero() -> None:
    assert Ledger(0).percentiles(0.5, 1.0) == [0.0, 0.0]


def test_a_postback_is_answered_when_one_attempt_was_answered() -> None:
    ledger = Ledger(3)
    assert not ledger.enter(0, "503", 0.1)
    assert ledger.enter(0, "200", 0.1)
    assert ledger.enter(0, "200", 0.1)
    ledger.enter(1, "timeout", 10.0)
    assert [ledger.was_answered(number) for number in range(3)] == [True, False, False]
    assert [ledger.was_sent(number) for number in range(3)] == [True, True, False]
    assert (ledger.sent, ledger.answered, ledger.posts, ledger.late) == (2, 1, 4, 1)
    assert len(ledger.times) == 3


def test_only_a_postback_without_a_200_is_given_up() -> None:
    ledger = Ledger(2)
    for number in range(2):
        ledger.enter(number, "503", 0.1)
        ledger.give_up(number)
    ledger.enter(1, "200", 0.1)  # the duplicate of 1
    assert ledger.given_up == 1
