"""Any text of a client can be encoded as an AMQP short string."""

from hypothesis import example, given
from hypothesis import strategies as st
from pamqp import encode

from shared.postback.short_string import SHORT_STRING, fit

ANY_TEXT = st.text(max_size=600) | st.text(
    st.sampled_from("aé\U0001f600\ud800\0\n\x9b"), min_size=100, max_size=300
)
"""Also longer than AMQP allows, with control characters, or no Unicode."""


@given(ANY_TEXT, st.integers(1, 600))
def test_a_short_string_is_unicode_without_control_characters_and_within_the_limit(
    text: str, limit: int
) -> None:
    fitted = fit(text, limit)
    assert len(fitted.encode()) <= limit
    assert not any(ord(each) < 32 or 127 <= ord(each) < 160 for each in fitted)
    assert fit(fitted, limit) == fitted


@given(ANY_TEXT)
@example("é" * 128)
def test_a_short_string_can_be_encoded(text: str) -> None:
    assert len(encode.short_string(fit(text))) <= SHORT_STRING + 1


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=50))
def test_a_text_that_fits_is_not_changed(text: str) -> None:
    assert fit(text) == text


def test_a_short_string_is_cut_between_two_characters() -> None:
    assert fit("é" * 128) == "é" * 127
    assert fit("a\ud800b\r\n\x9b") == "a?b???"
