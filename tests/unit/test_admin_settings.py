"""`mms-admin settings`: values, origins and the sample of the settings file."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from shared.settings.describe import describe, sample_file
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from workers.admin.settings import show_settings


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "mms.toml"


SAMPLE = Path(__file__).parents[2] / "deploy" / "mms.toml"


def uncommented() -> str:
    """The sample with every setting active; a comment has a space after its `#`."""
    return re.sub(r"^#(?=\S)", "", sample_file(), flags=re.MULTILINE)


def test_the_sample_in_deploy_is_the_one_that_the_command_prints() -> None:
    assert SAMPLE.read_text() == sample_file()


def test_the_sample_as_it_is_sets_nothing(toml: Path) -> None:
    toml.write_text(sample_file())
    assert tomllib.loads(sample_file()) == {}
    assert load_settings({"MMS_CONFIG": str(toml)}) == Settings()


def test_the_uncommented_sample_sets_every_setting_to_its_default(toml: Path) -> None:
    names = [name for name in Settings.__struct_fields__ if name != "rules"]
    assert list(tomllib.loads(uncommented())) == names
    toml.write_text(uncommented())
    assert load_settings({"MMS_CONFIG": str(toml)}) == Settings()


def test_the_sample_has_every_description() -> None:
    text = re.sub(r"\n#\s+", " ", sample_file())
    assert all(row.description in text for row in describe())


def shown(*arguments: str, **environ: str) -> str:
    """What `mms-admin settings` prints."""
    done = CliRunner().invoke(show_settings, arguments, env=environ)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_command_prints_the_sample() -> None:
    assert shown("--sample") == sample_file()


def test_the_command_shows_values_and_origins_but_no_secret(toml: Path) -> None:
    secret = toml.with_name("secret")
    secret.write_text("7777")
    toml.write_text(f'prefetch = 8\ningest_port_file = "{secret}"\n')
    environ = {
        "MMS_CONFIG": str(toml),
        "MMS_REDIS_URL": "redis://:hush@127.0.0.1/0",
        "MMS_SOURCE_DEFAULT_TOKEN": "hush-0123456789abcdef",
        "MMS_STATE_TTL": "36h",
    }
    items = {
        item["setting"]: item
        for item in map(json.loads, shown("--json", **environ).split("\n")[:-1])
    }
    assert items["MMS_PREFETCH"] == {
        "setting": "MMS_PREFETCH",
        "value": "8",
        "origin": f"prefetch in {toml}",
    }
    assert items["MMS_STATE_TTL"]["value"] == "36h"
    assert items["MMS_ADMIN_PORT"]["origin"] == "default"
    for name in ("MMS_REDIS_URL", "MMS_SOURCE_DEFAULT_TOKEN", "MMS_INGEST_PORT"):
        assert items[name]["value"] == "***"
    table = shown(**environ)
    assert "MMS_PREFETCH" in table
    assert "hush" not in table + json.dumps(items)
    assert "7777" not in table + json.dumps(items)


def test_the_command_names_a_setting_that_cannot_be_used() -> None:
    done = CliRunner().invoke(show_settings, env={"MMS_PREFETCH": "many"})
    assert done.exit_code == 2
    assert "MMS_PREFETCH is 'many'" in done.stderr
