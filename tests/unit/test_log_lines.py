"""Phone numbers inside words and encodings are masked; lines as JSON; levels by logger."""

import json
import logging
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import log
from shared.errors import SettingsError
from shared.settings.load import load_settings

NUMBER = "15550100001"


@pytest.mark.parametrize("length", range(7, 16))
@pytest.mark.parametrize(
    "text",
    [
        "to{}",
        "{}x",
        "MSISDN_{}_",
        "to=%2B{}&from=",
        "to=%2b{}",
        "%20{}",
        "%3d{}",
        "%22%2B{}%22",
        "/postbacks/{}/x",
        "x2b{}",
        "T-{}-1",
        "v1.{}.2",
    ],
)
def test_a_number_in_a_word_or_percent_encoded_is_masked(text: str, length: int) -> None:
    number = "123456789012345"[:length]
    assert number not in log.mask(text.format(number))
    assert log.mask(text.format(number)).count("***") == 1


@given(st.binary(min_size=8, max_size=24))
def test_an_id_in_hexadecimal_is_not_masked(raw: bytes) -> None:
    text = raw.hex()
    if not text.isdigit():
        assert log.mask(f"batch {text}: 3 postbacks") == f"batch {text}: 3 postbacks"


@pytest.mark.parametrize("text", ["run80685aa6-000123", "MMS_35674_abcdef", "FIRST-1", "order-7"])
def test_an_id_with_letters_is_not_masked(text: str) -> None:
    assert log.mask(f"tracking-id {text}") == f"tracking-id {text}"


@pytest.fixture
def root() -> Iterator[None]:
    """Restore the logging configuration."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])
    logging.getLogger("workers").setLevel(logging.NOTSET)


@pytest.mark.usefixtures("root")
def test_a_json_line_has_its_extra_keys_and_no_phone_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure("INFO", "json")
    logger = logging.getLogger("anybody")
    logger.info("to %s", NUMBER, extra={"batch": "a1b2c3d4e5f60718", "postbacks": 3, "to": NUMBER})
    try:
        int(f"x{NUMBER}")
    except ValueError:
        logger.exception("two\nlines")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO",
        "logger": "anybody",
        "message": "to ***01",
        "batch": "a1b2c3d4e5f60718",
        "postbacks": 3,
        "to": "***01",
    }
    assert second["message"] == "two\nlines"
    assert "'x***01'" in second["error"]


@pytest.mark.usefixtures("root")
def test_a_logger_can_have_a_level_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("WARNING,workers=DEBUG")
    logging.getLogger("workers.pipeline").debug("shown")
    logging.getLogger("ingest.commit").info("not this")
    assert "shown" in (err := capsys.readouterr().err)
    assert "not this" not in err


@pytest.mark.parametrize(
    "variables",
    [{"MMS_LOG_LEVEL": "LOUD"}, {"MMS_LOG_LEVEL": "INFO,workers"}, {"MMS_LOG_FORMAT": "xml"}],
)
def test_the_error_of_a_bad_log_setting_names_it(variables: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=next(iter(variables))):
        load_settings(variables)
