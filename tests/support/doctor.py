"""`mms-admin doctor`, run as a command, and its findings."""

import json
import os
import subprocess
from collections.abc import Sequence

import msgspec

from deploy.local.services import command
from shared.settings.settings import Settings
from tests.support.processes import environment
from workers.admin.doctor.finding import Finding, State


class Examined:
    """One run of the command."""

    def __init__(self, settings: Settings, *, arguments: Sequence[str] = (), **more: str) -> None:
        done = subprocess.run(
            (command("mms-admin"), "doctor", "--json", *arguments),
            env=os.environ | environment(settings) | more,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert not done.stderr, done.stderr
        self.status = done.returncode
        lines = map(json.loads, done.stdout.splitlines())
        self.findings = [msgspec.convert(line, Finding) for line in lines]

    def __getitem__(self, check: str) -> Finding:
        return next(each for each in self.findings if each.check == check)

    @property
    def wrong(self) -> list[str]:
        return [each.check for each in self.findings if each.state is State.WRONG]
