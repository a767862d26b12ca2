"""The outcome of each code and status text: the whole table of the contract."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.postback.codes import (
    CODES,
    Outcome,
    Track,
    canonical_status,
    outcome_of,
    phase_of,
    unknown_status,
)
from tests.support import contract

ODD: list[Callable[[str], str]] = [
    str,
    str.upper,
    str.lower,
    str.swapcase,
    "  {}\t\n".format,
    lambda text: text.replace("/", " / "),
    lambda text: text.replace(" ", "  "),
]
"""Ways to write a status text that change nothing."""


def test_every_code_of_the_contract_is_in_the_table_and_no_other() -> None:
    assert {code: (row.track, row.outcome) for code, row in CODES.items()} == contract.CODES
    assert {code for code, row in CODES.items() if row.refined} == contract.REFINED


@pytest.mark.parametrize("code", contract.CODES)
def test_the_outcome_of_every_code_with_every_status_text(code: str) -> None:
    for text in contract.STATUSES:
        for oddly in ODD:
            written = oddly(text)
            expected = contract.expected_outcome(code, text)
            assert outcome_of(code, written) == expected, f"{code} that says {written!r}"


@pytest.mark.parametrize("code", contract.CODES)
@pytest.mark.parametrize("status", [None, ""])
def test_without_a_status_the_outcome_is_the_codes_default(code: str, status: str | None) -> None:
    _, default = contract.CODES[code]
    assert outcome_of(code, status) == default
    assert not unknown_status(code, status)


UNKNOWN = ["Frobnicated", "Message Sent/", "/", "N103", "Message", "Not Delivered", "Undelivered"]


@pytest.mark.parametrize("code", contract.CODES)
@pytest.mark.parametrize("status", UNKNOWN)
def test_an_unknown_status_is_never_a_delivery(code: str, status: str) -> None:
    assert outcome_of(code, status) == contract.expected_outcome(code, status)
    assert unknown_status(code, status) == (code in contract.REFINED)
    if code in contract.REFINED:
        assert outcome_of(code, status) is not Outcome.DELIVERED


@given(st.sampled_from(sorted(contract.REFINED)), st.text(min_size=1, max_size=30))
def test_only_a_word_of_the_table_delivers(code: str, status: str) -> None:
    said = "".join(status.rsplit("/", 1)[-1].lower().split()).removeprefix("message")
    delivers = outcome_of(code, status) is Outcome.DELIVERED
    assert delivers == (said in {"delivered", "retrieved", "success"})


@pytest.mark.parametrize(("in_xml", "in_json"), contract.WORDINGS.items())
def test_both_wordings_of_a_status_have_one_spelling(in_xml: str, in_json: str) -> None:
    spellings = {canonical_status(oddly(text)) for text in (in_xml, in_json) for oddly in ODD}
    assert len(spellings) == 1


def test_texts_with_different_outcomes_have_different_spellings() -> None:
    decided = {canonical_status(text): said for text, said in contract.STATUSES.items()}
    assert all(decided[canonical_status(text)] == said for text, said in contract.STATUSES.items())


def test_an_unknown_status_keeps_its_words() -> None:
    assert canonical_status("  Held by the Carrier ") == "Held by the Carrier"
    assert canonical_status("Message Sent/Held by the Carrier") == "Held by the Carrier"
    assert canonical_status("message Lost") == "Lost"
    assert canonical_status("N/A") == "N/A"
    assert canonical_status("Message Sent/") == "Message Sent/"


@pytest.mark.parametrize("track", [Track.MESSAGE, Track.DISCOVERY])
def test_phases_rise_from_accepted_to_delivered(track: Track) -> None:
    failures = {
        phase_of(track, outcome)
        for outcome in Outcome
        if outcome not in {"accepted", "sent", "deferred", "delivered", "ready"}
    }
    assert len(failures) == 1
    assert phase_of(track, Outcome.DEFERRED) == phase_of(track, Outcome.SENT)
    phases = [
        phase_of(track, Outcome.ACCEPTED),
        phase_of(track, Outcome.SENT),
        *failures,
        phase_of(track, Outcome.DELIVERED),
    ]
    assert phases == sorted(set(phases))


def test_a_templates_failure_outranks_ready() -> None:
    ready, failed = (phase_of(Track.TEMPLATE, each) for each in (Outcome.READY, Outcome.FAILED))
    assert ready < failed
