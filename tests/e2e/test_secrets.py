"""The commands show no secret: not in a log, not in an error, not in `--help`."""

import os
import subprocess

import msgspec
import pytest

from deploy.local.ports import free_port
from deploy.local.services import command
from shared.settings import password
from shared.settings.settings import Settings
from tests.support.processes import Processes, until

HUSH = "hush-0123456789abcdef"
COMMANDS = ("mms-ingest", "mms-worker", "mms-admin", "mms-simulate")
SECRETS = {
    "MMS_AMQP_URL": f"amqp://mms:{HUSH}@127.0.0.1:1/",
    "MMS_REDIS_URL": f"redis://mms:{HUSH}@127.0.0.1:1/0",
    "MMS_SOURCE_DEFAULT_TOKEN": HUSH,
    "MMS_SOURCE_DEFAULT_BASIC": f"mms:{password.hashed(HUSH.encode())}",
}


def output(name: str, *arguments: str, **more: str) -> str:
    """Standard output and standard error of a command, on ports that no other test uses."""
    ports = {name: str(free_port()) for name in ("MMS_INGEST_PORT", "MMS_ADMIN_PORT")}
    if "MMS_INGEST_PORT_FILE" in more:
        del ports["MMS_INGEST_PORT"]
    done = subprocess.run(
        [command(name), *arguments],
        env=os.environ | SECRETS | ports | more,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def hidden(text: str) -> bool:
    """Whether the text has no secret, and neither the hash nor its salt."""
    _, _, hashed = SECRETS["MMS_SOURCE_DEFAULT_BASIC"].partition(":")
    return not any(part in text for part in (HUSH, hashed, *hashed.split(".")[-2:]))


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name: str) -> None:
    text = output(name, "--help")
    assert "MMS_AMQP_URL" in text
    assert hidden(text)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MMS_AMQP_URL", f"amqp://mms:{HUSH}/x@127.0.0.1:1/"),
        ("MMS_AMQP_URL", f"https://mms:{HUSH}@127.0.0.1:1/"),
        ("MMS_AMQP_URL", HUSH),
        ("MMS_SOURCE_DEFAULT_TOKEN", f"{HUSH} {HUSH}"),
        ("MMS_SOURCE_DEFAULT_BASIC", f"mms:{HUSH}"),
        ("MMS_INGEST_PORT_FILE", HUSH),
    ],
)
def test_errors_of_settings(variable: str, value: str) -> None:
    text = output("mms-ingest", **{variable: value})
    assert variable in text
    assert "Traceback" not in text
    assert hidden(text)


def test_without_an_access_rule_it_does_not_listen_to_a_network() -> None:
    named = {"MMS_SOURCES": "default,acme", "MMS_INGEST_HOST": "0.0.0.0", "MMS_SPOOL_PATH": ""}
    text = output("mms-ingest", **named)
    assert "postbacks for acme." in text
    assert "MMS_OPEN=1" in text
    assert hidden(text)


@pytest.mark.parametrize(
    ("name", "arguments", "ends"),
    [
        ("mms-ingest", (), {"MMS_INGEST_HOST": "192.0.2.1", "MMS_SPOOL_PATH": ""}),
        ("mms-worker", (), {"MMS_REDIS_URL": "none"}),
        ("mms-admin", ("show", "x"), {}),
        ("mms-simulate", ("--count", "1", "--deadline", "1s", "http://127.0.0.1:1/postbacks"), {}),
    ],
)
def test_each_command_names_a_misspelt_variable(
    name: str, arguments: tuple[str, ...], ends: dict[str, str]
) -> None:
    text = output(name, *arguments, MMS_AMPQ_URL=SECRETS["MMS_AMQP_URL"], **ends)
    assert "MMS_AMPQ_URL is set, but there is no such setting; did you mean MMS_AMQP_URL?" in text
    assert "Traceback" not in text
    assert hidden(text)


@pytest.mark.parametrize("url", [f"redis://mms:{HUSH}/x@127.0.0.1:1/0", f"redis+cluster://{HUSH}"])
def test_errors_of_the_redis_url(url: str) -> None:
    text = output("mms-worker", MMS_REDIS_URL=url)
    assert "MMS_REDIS_URL" in text
    assert "Traceback" not in text
    assert hidden(text)


def test_logs_of_processes_with_a_wrong_password(
    settings: Settings, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real RabbitMQ and a real Redis that do not know the password."""
    for name in ("MMS_SOURCE_DEFAULT_TOKEN", "MMS_SOURCE_DEFAULT_BASIC"):
        monkeypatch.setenv(name, SECRETS[name])
    wrong = msgspec.structs.replace(
        settings,
        amqp_url=settings.amqp_url.replace("guest:guest", f"mms:{HUSH}"),
        redis_url=settings.redis_url.replace("redis://", f"redis://mms:{HUSH}@"),
        log_level="DEBUG",
    )
    ingest = processes.start_ingest(wrong, wait=False)
    worker = processes.start_worker(wrong, wait=False)
    assert until(lambda: "ACCESS_REFUSED" in ingest.log(), within=20)
    assert until(lambda: "Redis" in worker.log(), within=20)
    for process in (ingest, worker):
        assert hidden(process.log())
        for page in ("/readyz", "/metrics"):
            assert hidden(process.ask(page)[1])
