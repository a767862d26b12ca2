"""Access rules: where they are written, what they take, and that no error repeats a secret."""

import re
from pathlib import Path

import pytest

from shared.errors import SettingsError
from shared.settings import password
from shared.settings.environment import PATH_SETTINGS
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from shared.settings.sources import BasicAuthUser

TOKEN = "6ZbQ-9.x_Ltoken~0123"
OTHER = "another-token-0123456789"
HASHED = password.hashed(b"correct horse")


def test_a_rule_from_the_environment() -> None:
    loaded = load_settings(
        {
            "MMS_SOURCES": "default,acme-eu",
            "MMS_SOURCE_ACME_EU_TOKEN": f"{TOKEN}, {OTHER}",
            "MMS_SOURCE_ACME_EU_BASIC": f"mms:{HASHED}",
            "MMS_SOURCE_ACME_EU_ALLOW": "192.0.2.0/24,2001:db8::1",
            "MMS_SOURCE_ACME_EU_RATE": "2.5",
        }
    )
    rule = loaded.rules["acme-eu"]
    assert set(loaded.rules) == {"acme-eu"}
    assert rule.token == (TOKEN, OTHER)
    assert rule.basic == (BasicAuthUser(b"mms", HASHED),)
    assert [str(each) for each in rule.allow] == ["192.0.2.0/24", "2001:db8::1/128"]
    assert rule.rate == 2.5
    assert not rule.open


def test_a_rule_from_toml_and_one_part_of_it_from_the_environment(tmp_path: Path) -> None:
    config = tmp_path / "mms.toml"
    secret = tmp_path / "secret"
    secret.write_text(f"{OTHER}\n")
    config.write_text(
        'sources = ["acme"]\nmax_body = "1KiB"\n[source.acme]\n'
        f'token = "{TOKEN}"\nallow = ["192.0.2.0/24", "198.51.100.7"]\nrate = 10\n'
    )
    environ = {"MMS_CONFIG": str(config), "MMS_SOURCE_ACME_TOKEN_FILE": str(secret)}
    rule = load_settings(environ).rules["acme"]
    assert rule.token == (OTHER,)
    assert len(rule.allow) == 2
    assert rule.rate == 10


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"MMS_SOURCE_NOBODY_TOKEN": TOKEN}, "MMS_SOURCES does not name"),
        ({"MMS_SOURCE_DEFAULT_TOKN": TOKEN}, "MMS_SOURCE_DEFAULT_TOKN is not a part"),
        ({"MMS_SOURCE_DEFAULT_TOKEN": "short-hush"}, "16 to 256 characters"),
        ({"MMS_SOURCE_DEFAULT_TOKEN": "with a space-hush-hush-hush"}, "16 to 256 characters"),
        ({"MMS_SOURCE_DEFAULT_TOKEN": " "}, "MMS_SOURCE_DEFAULT_TOKEN cannot be read"),
        ({"MMS_SOURCE_DEFAULT_BASIC": "mms:plain-hush"}, "hash-password"),
        ({"MMS_SOURCE_DEFAULT_BASIC": "hush"}, "hash-password"),
        ({"MMS_SOURCE_DEFAULT_BASIC": f"mms:{HASHED}x-hush"}, "hash-password"),
        ({"MMS_SOURCE_DEFAULT_ALLOW": ""}, "MMS_SOURCE_DEFAULT_ALLOW cannot be read"),
        ({"MMS_SOURCE_DEFAULT_ALLOW": "10.0.0.1/8"}, "192.0.2.0/24"),
        ({"MMS_SOURCE_DEFAULT_RATE": "-1"}, "a second"),
        ({"MMS_RATE_PER_SOURCE": "inf"}, "a number, 0 or more"),
        ({"MMS_TRUSTED_PROXIES": "proxy"}, "addresses and networks"),
        ({"MMS_OPEN": "perhaps"}, "1 or 0"),
        ({"MMS_AMQP_URL": "amqp://mms:hu/sh-hush@rabbit/"}, "MMS_AMQP_URL is not an amqp://"),
        ({"MMS_AMQP_URL": "amqp://mms:hu#sh-hush@rabbit/"}, "MMS_AMQP_URL is not an amqp://"),
        ({"MMS_AMQP_URL": "amqp://ok/,http://mms:hush@rabbit/"}, "MMS_AMQP_URL is not an amqp://"),
    ],
)
def test_errors_name_the_origin_and_repeat_no_secret(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as raised:
        load_settings(environ)
    for secret in ("hush", TOKEN, str(HASHED)):
        assert secret not in str(raised.value)
    assert raised.value.__cause__ is None


def test_every_setting_can_come_from_a_file(tmp_path: Path) -> None:
    for name in Settings.__struct_fields__:
        if name == "rules":
            continue
        default = getattr(Settings(), name)
        text = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
        path = tmp_path / name
        path.write_text(f"{text}\n")
        loaded = load_settings({f"MMS_{name.upper()}_FILE": str(path)})
        # The file of a certificate is the value itself, under both names.
        assert getattr(loaded, name) == (str(path) if name in PATH_SETTINGS else default)


@pytest.mark.parametrize("name", ["MMS_AMQP_URL", "MMS_SOURCE_DEFAULT_TOKEN"])
def test_a_value_and_its_file_cannot_both_be_set(name: str) -> None:
    with pytest.raises(SettingsError, match="both set"):
        load_settings({name: TOKEN, f"{name}_FILE": "/none"})


def test_an_error_repeats_no_path_and_no_value_from_a_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not name a file") as raised:
        load_settings({"MMS_REDIS_URL_FILE": "redis://:hush@host/0"})
    assert "hush" not in str(raised.value)
    path = tmp_path / "number"
    path.write_text("hush")
    with pytest.raises(SettingsError, match="MMS_INGEST_PORT_FILE is set") as raised:
        load_settings({"MMS_INGEST_PORT_FILE": str(path)})
    assert "hush" not in str(raised.value)
    config = tmp_path / "mms.toml"
    config.write_text(f'ingest_port_file = "{path}"')
    with pytest.raises(SettingsError, match=r"ingest_port_file in .* is set") as raised:
        load_settings({"MMS_CONFIG": str(config)})
    assert "hush" not in str(raised.value)


def test_settings_and_rules_show_no_secret() -> None:
    loaded = load_settings(
        {
            "MMS_AMQP_URL": "amqp://mms:hush@rabbit/",
            "MMS_REDIS_URL": "redis://:hush@redis/0",
            "MMS_SOURCE_DEFAULT_TOKEN": TOKEN,
            "MMS_SOURCE_DEFAULT_BASIC": f"mms:{HASHED}",
        }
    )
    shown = f"{loaded!r} {loaded} {loaded.rules!r} {loaded.rules['default'].basic!r}"
    for secret in ("hush", TOKEN, str(HASHED), repr(HASHED.digest)):
        assert secret not in shown
    assert "ingest_port=8080" in shown
