"""The real commands under load from `mms-simulate`, which also checks the result."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.local.services import Service, command
from shared.settings import password
from shared.settings.settings import Settings
from tests.support.processes import Processes, environment, metric, until

MIDDLE = 200
"""Postbacks answered 200 before a process is killed."""
CHECKED_RUN = (
    "--count",
    "1500",
    "--format",
    "mixed",
    "--duplicates",
    "0.1",
    "--shuffle",
    "--verify",
)
CHECKED_RUN_WITH_OTHER_ORIGINS = (*CHECKED_RUN, "--passthrough", "0.02")


def start(settings: Settings, *arguments: str) -> "subprocess.Popen[str]":
    """A provider that sends to this ingress."""
    url = f"http://127.0.0.1:{settings.ingest_port}/postbacks"
    return subprocess.Popen(
        (command("mms-simulate"), url, "--json", *arguments),
        env=os.environ | environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answered(ingress: Service) -> float:
    """How many postbacks this ingress has answered 200."""
    return metric(ingress, "mms_ingest_answers_total", status="200")


def outcome(provider: "subprocess.Popen[str]") -> tuple[int, dict[str, Any]]:
    """The exit status of the provider and its report."""
    out, err = provider.communicate(timeout=100)
    assert out, err
    return provider.returncode, json.loads(out)


def test_every_postback_answered_200_is_accounted_for(
    settings: Settings, processes: Processes
) -> None:
    processes.start_ingest(settings)
    processes.start_worker(settings)
    processes.start_worker(settings)
    status, report = outcome(start(settings, *CHECKED_RUN_WITH_OTHER_ORIGINS))
    assert status == 0, report
    assert report["check"]["lost"] == report["check"]["wrong"] == 0
    assert report["check"]["passthrough"] == report["ledger"]["other_origins"] > 10
    assert report["check"]["in_state"] == report["ledger"]["answered_200"] > 1500


def test_killing_a_worker_changes_nothing(settings: Settings, processes: Processes) -> None:
    ingress = processes.start_ingest(settings)
    worker = processes.start_worker(settings)
    provider = start(settings, *CHECKED_RUN, "--rate", "800")
    assert until(lambda: answered(ingress) > MIDDLE)
    worker.kill()
    worker.start()
    status, report = outcome(provider)
    assert status == 0, report


def test_killing_the_ingress_causes_only_resends(settings: Settings, processes: Processes) -> None:
    ingress = processes.start_ingest(settings)
    processes.start_worker(settings)
    provider = start(settings, *CHECKED_RUN, "--rate", "800", "--resend-after", "2s")
    assert until(lambda: answered(ingress) > MIDDLE)
    ingress.kill()
    ingress.start()
    status, report = outcome(provider)
    assert status == 0, report
    assert report["ledger"]["resent"] > 0


def test_a_run_without_any_200_fails(settings: Settings, processes: Processes) -> None:
    """With a wrong URL or token no postback is answered 200."""
    processes.start_ingest(settings)
    stranger = ("--source", "nobody", "--count", "2", "--deadline", "1s", "--settle", "1s")
    status, report = outcome(start(settings, *stranger, "--verify"))
    assert report["ledger"]["answered_200"] == 0
    assert not report["check"]["ok"]
    assert status == 1


def test_without_a_worker_everything_is_lost(settings: Settings, processes: Processes) -> None:
    """Proves that the check can fail."""
    processes.start_ingest(settings)
    status, report = outcome(start(settings, "--count", "20", "--verify", "--settle", "1s"))
    assert status == 1
    assert report["check"]["lost"]


TOKEN = "a-token-for-the-path"
PASSWORD = "corr\u00e8ct horse"
CREDENTIALS = ("--token-file", "token", "--user", "mms", "--password-file", "password")


@pytest.fixture
def protected(
    settings: Settings,
    processes: Processes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Settings:
    """An ingress with two protected sources; the secrets are in files of the current directory."""
    mine = msgspec.structs.replace(settings, sources=("acme", "default"))
    hashed = password.hashed(PASSWORD.encode())
    for source in ("ACME", "DEFAULT"):
        monkeypatch.setenv(f"MMS_SOURCE_{source}_TOKEN", TOKEN)
        monkeypatch.setenv(f"MMS_SOURCE_{source}_BASIC", f"mms:{hashed}")
    processes.start_ingest(mine)
    processes.start_worker(mine)
    monkeypatch.chdir(tmp_path)
    Path("token").write_text(f"{TOKEN}\n")
    Path("password").write_text(f"{PASSWORD}\n")
    return mine


def test_a_protected_source(protected: Settings) -> None:
    for source in protected.sources:
        arguments = (
            "--count",
            "50",
            "--source",
            source,
            "--verify",
            "--settle",
            "10s",
            *CREDENTIALS,
        )
        status, report = outcome(start(protected, *arguments))
        assert status == 0, report
        assert report["ledger"]["attempts"].keys() == {"200"}
    for shown, answer in (
        ((), "403"),
        (("--token", "not-this-token-here"), "403"),
        (("--token", TOKEN), "401"),
        (("--token", TOKEN, "--user", "mms", "--password-file", "token"), "401"),
    ):
        arguments = ("--count", "3", "--source", "acme", "--deadline", "500ms", *shown)
        status, report = outcome(start(protected, *arguments))
        assert status == 1
        assert report["ledger"]["attempts"].keys() == {answer}
