"""Settings: their sources, their values, and the errors about values that cannot be used."""

import logging
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.settings.bounds import BOUNDS
from shared.settings.describe import Row, describe
from shared.settings.environment import MAX_FILE_SIZE
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings
from shared.settings.sources import Rule
from shared.settings.units import parse_networks, parse_seconds

CONTRACT = {
    "MMS_AMQP_URL": "amqp://guest:guest@127.0.0.1:5672/",
    "MMS_REDIS_URL": "redis://127.0.0.1:6379/0",
    "MMS_INGEST_HOST": "127.0.0.1",
    "MMS_INGEST_PORT": "8080",
    "MMS_SPOOL_PATH": "var/spool.db",
    "MMS_STATE_TTL": "7d",
    "MMS_MAX_BODY": "64KiB",
    "MMS_LINGER": "10ms",
}


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "mms.toml"


def test_the_settings_of_the_contract_have_its_defaults() -> None:
    rows = {row.variable: row.default for row in describe()}
    assert CONTRACT.items() <= rows.items()
    assert "MMS_ADMIN_PORT" in rows


def test_every_setting_is_described() -> None:
    rows = list(describe())
    of_sources = [row.variable for row in rows if "<NAME>" in row.variable]
    assert of_sources == [
        f"MMS_SOURCE_<NAME>_{part}" for part in ("TOKEN", "BASIC", "ALLOW", "RATE")
    ]
    assert [row.variable for row in rows if row.variable not in of_sources] == [
        f"MMS_{name.upper()}" for name in Settings.__struct_fields__ if name != "rules"
    ]
    assert all(row.description for row in rows)
    assert "9090" in next(r.description for r in rows if r.variable == "MMS_ADMIN_PORT")


def plain() -> list[Row]:
    """All settings except the access rules."""
    return [row for row in describe() if "<NAME>" not in row.variable]


def test_a_described_default_can_be_set() -> None:
    written = {row.variable: row.default for row in plain()}
    assert load_settings(written) == load_settings({}) == Settings()


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(toml: Path) -> None:
    toml.write_text('max_body = "1MiB"\ningest_port = 1234\nprefetch = 4\n')
    settings = load_settings(
        {"MMS_CONFIG": str(toml), "MMS_INGEST_PORT": "4321", "MMS_PREFETCH": " 8 "}
    )
    assert (settings.max_body, settings.ingest_port, settings.prefetch) == (2**20, 4321, 8)
    assert settings.ingest_host == Settings().ingest_host


def test_every_setting_can_come_from_the_file(toml: Path) -> None:
    values = {row.variable.removeprefix("MMS_").lower(): row.default for row in plain()}
    toml.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    assert load_settings({"MMS_CONFIG": str(toml)}) == Settings()


def test_an_empty_variable_is_a_value() -> None:
    assert load_settings({"MMS_SPOOL_PATH": ""}).spool_path == ""


def test_other_variables_are_ignored() -> None:
    assert load_settings({"PATH": "/bin", "MAX_BODY": "1", "mms_max_body": "1"}) == Settings()


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("30", 30),
        ("0.5", 0.5),
        ("15m", 900),
        ("12h", 43200),
        ("7d", 604800),
        ("1.5 h", 5400),
    ],
)
def test_spans_of_time(written: str, seconds: float) -> None:
    assert parse_seconds(written) == pytest.approx(seconds)
    if seconds >= 1:
        assert load_settings({"MMS_STATE_TTL": written}).state_ttl == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1", 1),
        ("100B", 100),
        ("64KiB", 65536),
        ("1MiB", 2**20),
        ("4GiB", 2**32),
        ("1TiB", 2**40),
        ("0.5 MiB", 2**19),
    ],
)
def test_sizes(written: str, size: int) -> None:
    assert load_settings({"MMS_QUEUE_MAX_BYTES": written}).queue_max_bytes == size


@pytest.mark.parametrize("written", ["acme,other-2", " acme , other-2 ,", '["acme", "other-2"]'])
def test_names(written: str, toml: Path) -> None:
    if written.startswith("["):
        toml.write_text(f"sources = {written}")
        settings = load_settings({"MMS_CONFIG": str(toml)})
    else:
        settings = load_settings({"MMS_SOURCES": written})
    assert settings.sources == ("acme", "other-2")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MMS_STATE_TTL", ""),
        ("MMS_STATE_TTL", "soon"),
        ("MMS_STATE_TTL", "7w"),
        ("MMS_STATE_TTL", "-7d"),
        ("MMS_STATE_TTL", "7D"),
        ("MMS_STATE_TTL", "0"),
        ("MMS_MAX_BODY", ""),
        ("MMS_MAX_BODY", "64kb"),
        ("MMS_MAX_BODY", "0"),
        ("MMS_MAX_BODY", "-1"),
        ("MMS_MAX_BODY", "1e6"),
        ("MMS_MAX_BODY", "9" * 400),
        ("MMS_MAX_BODY", "1.5"),
        ("MMS_MAX_BODY", "9MiB"),  # no RabbitMQ message could hold it
        ("MMS_MAX_BODY", "\N{ARABIC-INDIC DIGIT ONE}"),
        ("MMS_SPOOL_MAX_BYTES", "1"),
        ("MMS_STATE_TTL", "500ms"),
        ("MMS_STATE_TTL", "inf"),
        ("MMS_STATE_TTL", "9" * 12 + "d"),
        ("MMS_ARCHIVE_MAX_AGE", "0.4"),
        ("MMS_ARCHIVE_MAX_BYTES", "3"),
        ("MMS_INGEST_HOST", ""),
        ("MMS_INGEST_HOST", "127.0.0.1:8080"),
        ("MMS_INGEST_HOST", "a..b"),
        ("MMS_ADMIN_HOST", "x" * 64 + ".example"),
        ("MMS_INGEST_PORT", "0"),
        ("MMS_INGEST_PORT", "65536"),
        ("MMS_INGEST_PORT", "8_080"),
        ("MMS_INGEST_PORT", "1" * 5000),
        ("MMS_PREFETCH", "65536"),
        ("MMS_REPLICAS", "-1"),
        ("MMS_RATE_PER_SOURCE", "nan"),
        ("MMS_RATE_PER_SOURCE", "inf"),
        ("MMS_RATE_PER_SOURCE", "1e-320"),
        ("MMS_RATE_PER_SOURCE", "0.0000001"),
        ("MMS_SOURCE_DEFAULT_RATE", "0.0000001"),
        ("MMS_SPOOL_PATH", "var\0spool"),
        ("MMS_OTEL_ENDPOINT", "collector:4318"),
        ("MMS_AMQP_URL", "amqp://host/?heartbeat=often"),
        ("MMS_AMQP_URL", "amqp://host/?heartbeat=-1"),
        ("MMS_INGEST_PORT", "http"),
        ("MMS_INGEST_PORT", "80.5"),
        ("MMS_PREFETCH", "0"),
        ("MMS_PREFETCH", "many"),
        ("MMS_MAX_WAITING", "0"),
        ("MMS_LINGER", "1001ms"),
        ("MMS_DELIVERY_LIMIT", "-1"),
        ("MMS_SOURCES", ""),
        ("MMS_SOURCES", "Acme"),
        ("MMS_SOURCES", "a/b"),
        ("MMS_SOURCES", "x" * 33),
        ("MMS_LOG_LEVEL", "LOUD"),
    ],
)
def test_the_error_of_a_bad_value_names_the_setting(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as raised:
        load_settings({variable: value})
    text = str(raised.value)
    assert "cannot be read" not in text or "It takes " in text


@pytest.mark.parametrize(
    "text",
    [
        'state_ttl = "soon"',
        "prefetch = 0",
        'sources = ["A"]',
        "sources = []",
        'amqp_url = "http://host"',
        'amqp_url = "amqp://host/?heartbeat=often"',
        'amqp_url = "amqps://host/?no_verify_ssl=1"',
        'admin_host = "a..b"',
        'otel_endpoint = "collector:4318"',
        'log_level = "LOUD"',
        'log_format = "xml"',
    ],
)
def test_the_error_of_a_bad_value_names_the_file_that_it_comes_from(text: str, toml: Path) -> None:
    toml.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load_settings({"MMS_CONFIG": str(toml)})
    assert str(raised.value).startswith(f"{text.partition(' ')[0]} in {toml} ")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('state_ttl = "soon"', "state_ttl"),
        ("max_body = true", "max_body"),
        ("max_body = nan", "max_body"),
        ("state_ttl = 2026-01-01", "state_ttl"),
        ("state_ttl = inf", "state_ttl"),
        ("ingest_host = 5", "ingest_host"),  # it would be 0.0.0.5
        ("spool_path = true", "spool_path"),
        ("spool_path = ['a']", "spool_path"),
        ("spool_path = {a = 1}", "spool_path"),
        ("sources = [1, true]", "sources"),
        ("sources = [['a']]", "sources"),
        ("prefetch = [1]", "prefetch"),
        ("amqp_url_file = 1", "amqp_url_file"),
        ("source.default.allow = 1", "allow"),
        ("a = " + "[" * 2000, "not TOML"),
        ("prefetch = 1.5", "prefetch"),
        ("no_such = 1", "no_such"),
        ("MMS_PREFETCH = 1", "MMS_PREFETCH"),
        ("[ingest]\nport = 1", "ingest"),
        ("prefetch = ", "not TOML"),
    ],
)
def test_the_error_of_a_bad_file_names_the_setting_and_the_file(
    text: str, named: str, toml: Path
) -> None:
    toml.write_text(text)
    with pytest.raises(SettingsError, match=named) as caught:
        load_settings({"MMS_CONFIG": str(toml)})
    assert str(toml) in str(caught.value)


CONTROL = "\x1b[31m\n\x7f\u202e"
"""A colour, a new line, a delete, and a mark for text from right to left."""

ESCAPED = r"\x1b[31m\n\x7f\u202e"


def test_an_error_repeats_no_control_characters(toml: Path) -> None:
    key = '"\\u001b[31m\\n\\u007f\\u202e"'
    odd = toml.with_name(f"{CONTROL}.toml")
    for path, content, repeated in (
        (toml, f"{key} = 1", f"do not exist: {ESCAPED}"),
        (toml, f"[source.{key}]\ntoken = 1", f"[source.{ESCAPED}] is of the wrong type"),
        (odd, "prefetch = ", f"{ESCAPED}.toml, which is not TOML"),
        (odd, "unknown = 1", f"{ESCAPED}.toml has settings that do not exist"),
        (odd, "prefetch = true", f"{ESCAPED}.toml is of the wrong type"),
    ):
        path.write_text(content)
        with pytest.raises(SettingsError) as raised:
            load_settings({"MMS_CONFIG": str(path)})
        assert repeated in str(raised.value)
        assert str(raised.value).isprintable()
    for name in (f"{CONTROL}.gone", "\udcff.gone"):
        with pytest.raises(SettingsError) as raised:
            load_settings({"MMS_CONFIG": str(toml.with_name(name))})
        assert str(raised.value).isprintable()


def test_a_missing_file_and_a_binary_file_are_errors(toml: Path) -> None:
    with pytest.raises(SettingsError, match="MMS_CONFIG"):
        load_settings({"MMS_CONFIG": str(toml)})
    toml.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="MMS_CONFIG"):
        load_settings({"MMS_CONFIG": str(toml)})


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 9000])
def test_a_number_of_thousands_of_digits_in_the_file_is_a_settings_error(
    number: str, toml: Path
) -> None:
    toml.write_text(f"ingest_port = {number}")
    with pytest.raises(SettingsError, match=r"mms\.toml"):
        load_settings({"MMS_CONFIG": str(toml)})


@pytest.mark.parametrize("variable", ["MMS_CONFIG", "MMS_SPOOL_PATH_FILE"])
def test_a_file_without_an_end_is_an_error(variable: str, toml: Path) -> None:
    """Such as /dev/zero."""
    toml.write_bytes(b" " * (MAX_FILE_SIZE + 1))
    with pytest.raises(SettingsError, match=f"{variable}.*File too large"):
        load_settings({variable: str(toml)})


def test_settings_are_immutable() -> None:
    with pytest.raises(AttributeError):
        setattr(Settings(), "prefetch", 1)  # noqa: B010


VARIABLES = [row.variable.replace("<NAME>", "DEFAULT") for row in describe()]

AMOUNT_VARIABLES = [f"MMS_{name.upper()}" for name in BOUNDS]
UNITS = ["", "ms", "s", "m", "h", "d", "B", "KiB", "MiB", "GiB", "TiB", "K", "e3", ".5"]
NUMBERS = (
    st.integers(-1, 2**70).map(str)
    | st.integers(1, 400).map(lambda digits: "9" * digits)
    | st.from_regex(r"[+-]?[0-9_.e]{0,400}", fullmatch=True)
    | st.sampled_from(["nan", "inf", "-inf"])
)
AMOUNTS = st.builds("{}{}".format, NUMBERS, st.sampled_from(UNITS))


@example(variable="MMS_MAX_BODY", text="9" * 400)
@example(variable="MMS_QUEUE_MAX_BYTES", text="9" * 400 + "TiB")
@example(variable="MMS_SPOOL_MAX_BYTES", text="1")
@given(
    variable=st.sampled_from(VARIABLES) | st.sampled_from(AMOUNT_VARIABLES),
    text=st.text() | AMOUNTS | st.ip_addresses().map(str),
)
def test_any_text_is_a_value_or_a_settings_error(variable: str, text: str) -> None:
    try:
        loaded = load_settings({variable: text})
    except SettingsError as error:
        assert variable.partition("_DEFAULT_")[0] in str(error)  # noqa: PT017 (both ways are right)
        return
    assert load_settings({variable: text}) == loaded
    for name, bounds in BOUNDS.items():
        value = getattr(loaded, name)
        no_limit = name == "rate_per_source" and value == 0
        assert bounds.lowest <= value <= bounds.highest or no_limit


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("MMS_AMPQ_URL", "did you mean MMS_AMQP_URL?"),
        ("MMS_SPOOL_PATHS", "did you mean MMS_SPOOL_PATH?"),
        ("MMS_REDIS_URL_FIL", "did you mean MMS_REDIS_URL_FILE?"),
        ("MMS_X", "--help"),
    ],
)
def test_a_warning_names_a_misspelt_variable(
    variable: str, hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_of_unknown_variables({variable: "hush", "PATH": "/bin"})
    (line,) = caplog.messages
    assert variable in line
    assert hint in line
    assert "hush" not in line


def test_a_warning_repeats_no_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    warn_of_unknown_variables({f"MMS_{CONTROL}": ""})
    (line,) = caplog.messages
    assert line.startswith(f"MMS_{ESCAPED} is set")
    assert line.isprintable()


def test_there_is_no_warning_about_known_variables(caplog: pytest.LogCaptureFixture) -> None:
    others = ["MMS_CONFIG", "MMS_PROXY_BIND", "MMS_INGRESS_1", "MMS_INGRESS_2_ADMIN_PORT"]
    others += ["MMS_INGEST_SERVICE_HOST", "MMS_INGEST_PORT_8080_TCP_ADDR", "MMS_REDIS_URL_FILE"]
    warn_of_unknown_variables(dict.fromkeys([*VARIABLES, *others], ""))
    assert not caplog.messages


def test_an_allow_list_may_have_ipv4_in_the_form_of_ipv6() -> None:
    allow = {"MMS_SOURCE_DEFAULT_ALLOW": "::ffff:192.0.2.0/120,::ffff:198.51.100.7,2001:db8::/32"}
    expected = parse_networks("192.0.2.0/24,198.51.100.7/32,2001:db8::/32")
    assert load_settings(allow).rules["default"] == Rule(allow=expected)
