"""Settings: where they come from, what they take, and what is said when they cannot be used."""

from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import Row, Settings, describe, load

CONTRACT = {
    "MMS_AMQP_URL": "amqp://guest:guest@127.0.0.1:5672/",
    "MMS_REDIS_URL": "redis://127.0.0.1:6379/0",
    "MMS_INGEST_HOST": "127.0.0.1",
    "MMS_INGEST_PORT": "8080",
    "MMS_SPOOL_PATH": "var/spool.db",
    "MMS_STATE_TTL": "7d",
    "MMS_MAX_BODY": "64KiB",
}


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "mms.toml"


def test_the_contracts_settings_are_there_with_its_defaults() -> None:
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
    """The settings but for the rules of sources."""
    return [row for row in describe() if "<NAME>" not in row.variable]


def test_a_described_default_is_what_one_may_write() -> None:
    written = {row.variable: row.default for row in plain()}
    assert load(written) == load({}) == Settings()


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(toml: Path) -> None:
    toml.write_text('max_body = "1MiB"\ningest_port = 1234\nprefetch = 4\n')
    settings = load({"MMS_CONFIG": str(toml), "MMS_INGEST_PORT": "4321", "MMS_PREFETCH": " 8 "})
    assert (settings.max_body, settings.ingest_port, settings.prefetch) == (2**20, 4321, 8)
    assert settings.ingest_host == Settings().ingest_host


def test_every_setting_can_come_from_the_file(toml: Path) -> None:
    values = {row.variable.removeprefix("MMS_").lower(): row.default for row in plain()}
    toml.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()))
    assert load({"MMS_CONFIG": str(toml)}) == Settings()


def test_an_empty_variable_is_a_value() -> None:
    assert load({"MMS_SPOOL_PATH": ""}).spool_path == ""


def test_other_variables_are_none_of_ours() -> None:
    assert load({"PATH": "/bin", "MAX_BODY": "1", "mms_max_body": "1"}) == Settings()


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
    assert load({"MMS_STATE_TTL": written}).state_ttl == pytest.approx(seconds)


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
    assert load({"MMS_MAX_BODY": written}).max_body == size


@pytest.mark.parametrize("written", ["acme,other-2", " acme , other-2 ,", '["acme", "other-2"]'])
def test_names(written: str, toml: Path) -> None:
    if written.startswith("["):
        toml.write_text(f"sources = {written}")
        settings = load({"MMS_CONFIG": str(toml)})
    else:
        settings = load({"MMS_SOURCES": written})
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
        ("MMS_INGEST_PORT", "http"),
        ("MMS_INGEST_PORT", "80.5"),
        ("MMS_PREFETCH", "0"),
        ("MMS_PREFETCH", "many"),
        ("MMS_MAX_WAITING", "0"),
        ("MMS_DELIVERY_LIMIT", "-1"),
        ("MMS_SOURCES", ""),
        ("MMS_SOURCES", "Acme"),
        ("MMS_SOURCES", "a/b"),
        ("MMS_SOURCES", "x" * 33),
        ("MMS_LOG_LEVEL", "LOUD"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        load({variable: value})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('state_ttl = "soon"', "state_ttl"),
        ("max_body = true", "max_body"),
        ("prefetch = 1.5", "prefetch"),
        ("no_such = 1", "no_such"),
        ("MMS_PREFETCH = 1", "MMS_PREFETCH"),
        ("[ingest]\nport = 1", "ingest"),
        ("prefetch = ", "no TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name_and_place(
    text: str, named: str, toml: Path
) -> None:
    toml.write_text(text)
    with pytest.raises(SettingsError, match=named) as caught:
        load({"MMS_CONFIG": str(toml)})
    assert str(toml) in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_refused(toml: Path) -> None:
    with pytest.raises(SettingsError, match="MMS_CONFIG"):
        load({"MMS_CONFIG": str(toml)})
    toml.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="MMS_CONFIG"):
        load({"MMS_CONFIG": str(toml)})


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        setattr(Settings(), "prefetch", 1)  # noqa: B010
