"""`mms-admin doctor`: all checks, as a table or as JSON."""

from typing import Final

import click

from shared import settings
from shared.errors import SettingsError
from workers.admin import console
from workers.admin.doctor.broker import check_rabbitmq
from workers.admin.doctor.finding import Check, Finding, State, ok, wrong
from workers.admin.doctor.machine import check_machine
from workers.admin.doctor.state import check_redis

CHECKS: Final[tuple[Check, ...]] = (check_machine, check_rabbitmq, check_redis)


@click.command()
@console.json_option
def doctor(*, as_json: bool) -> None:
    """Look what is wrong with this site, and say what to do about it.

    Checks the settings, the spool's folder and disk, RabbitMQ (each node, version, rights,
    topology, whether every queue answers, consumers, dead letters) and Redis (version,
    persistence, eviction, memory, rights, clock). Run it where mms-ingest or mms-worker runs, with
    the same settings and as the same user. It changes nothing; it takes one message from each
    queue and gives it back.

    Exit status: 0 nothing is wrong (there may be warnings), 1 something is.

    \b
    Examples:
      mms-admin doctor
      mms-admin doctor --json | jq -r 'select(.state != "ok") | .advice'
    """  # noqa: D301 (click reads the backslash)
    findings = console.run(_examine())
    if as_json:
        for finding in findings:
            console.print_json(finding)
    else:
        _print(findings)
    raise SystemExit(any(finding.state is State.WRONG for finding in findings))


async def _examine() -> list[Finding]:
    try:
        loaded = settings.load()
    except SettingsError as error:
        advice = "Correct it; nothing starts like this, and nothing more was looked at."
        return [wrong("settings", str(error), advice)]
    findings = [ok("settings", "can be read")]
    for check in CHECKS:
        findings += [finding async for finding in check(loaded)]
    return findings


def _print(findings: list[Finding]) -> None:
    console.print_table(
        "what was looked at",
        ["", "check", "found"],
        [[_MARKS[each.state], each.check, each.found] for each in findings],
    )
    for each in findings:
        if each.advice:
            console.say(f"{_MARKS[each.state]}: {each.check}: {each.found}\n    {each.advice}")
    wrongs = sum(finding.state is State.WRONG for finding in findings)
    console.say(f"{wrongs} wrong" if wrongs else "nothing is wrong")


_MARKS: Final = {State.OK: "ok", State.WARNING: "warning", State.WRONG: "WRONG"}
