"""`mms-admin doctor`: all checks, as a table or as JSON."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import click

from shared.errors import SettingsError
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.doctor.finding import Finding, State, causes_first, ok, reason, wrong
from workers.admin.doctor.process_checks import check_processes, parse_address
from workers.admin.doctor.rabbitmq_checks import check_rabbitmq
from workers.admin.doctor.redis_checks import check_redis
from workers.admin.doctor.spool_checks import check_spools

CHECK_LIMIT: Final = 45.0
"""Seconds that the checks of one part may take, whatever hangs; the parts are checked together."""


@click.command()
@click.option(
    "--process",
    "processes",
    multiple=True,
    metavar="HOST:PORT",
    help="Check the process with this admin port too; repeatable. See MMS_PROCESSES.",
)
@click.option(
    "--spool",
    "spools",
    multiple=True,
    metavar="PATH",
    help="Check this spool too, a path or a pattern; repeatable.",
)
@console.json_option
def doctor(processes: tuple[str, ...], spools: tuple[str, ...], *, as_json: bool) -> None:
    """Find what is wrong with this installation, and say what to do about it.

    Checks the settings, Redis (version, persistence, eviction, memory, rights, clock), RabbitMQ
    (each node, version, rights, topology, consumers, dead letters), each spool (disk, room,
    contents) and each named process (readiness). Causes come before their effects. Run it on a
    machine with mms-ingest or mms-worker, with the same settings and as the same user. It changes
    nothing and reads no message from a queue. So a quorum queue without a leader looks empty here;
    name the processes to see it. The command ends within a minute, whatever hangs.

    Exit status: 0 nothing is wrong (warnings are possible), 1 something is wrong, 2 the arguments
    are wrong.

    \b
    Examples:
      mms-admin doctor
      mms-admin doctor --process 10.0.0.5:9090 --process 10.0.0.6:9091
      mms-admin doctor --spool '/var/lib/mms-postbacks/*/spool.db'
      mms-admin doctor --json | jq -r 'select(.state != "ok") | .advice'
    """  # noqa: D301 (click reads the backslash)
    findings = console.run(_check_all(processes, spools))
    if as_json:
        for finding in findings:
            console.print_json(finding)
    else:
        _print(findings)
    raise SystemExit(any(finding.state is State.WRONG for finding in findings))


async def _check_all(processes: Sequence[str], spools: Sequence[str]) -> list[Finding]:
    for each in processes:
        parse_address(each)
    try:
        loaded = load_settings()
    except SettingsError as error:
        advice = "Correct it. No process starts with it, and nothing else was checked."
        return [wrong("settings", str(error), advice)]
    findings = [ok("settings", "can be read")]
    parts = {
        "redis": check_redis(loaded),
        "rabbitmq": check_rabbitmq(loaded),
        "spool": check_spools(loaded, spools),
        "processes": check_processes([*loaded.processes, *processes]),
    }
    for found in await asyncio.gather(*(_found(*part) for part in parts.items())):
        findings += found
    return causes_first(findings)


async def _found(name: str, check: AsyncIterator[Finding]) -> list[Finding]:
    """All findings of a check. An unexpected error of a server becomes one more finding."""
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(CHECK_LIMIT):
            async for finding in check:
                findings.append(finding)  # noqa: PERF401 - findings before an error count too
    except TimeoutError:
        advice = "Something answers slowly: see the findings before this one, and its log."
        findings.append(wrong(name, f"not done within {CHECK_LIMIT:g} s", advice))
    except Exception as error:  # noqa: BLE001 - not retried, and the other parts are checked
        found = f"cannot be checked: {type(error).__name__}: {reason(error)}"
        findings.append(wrong(name, found, "Check that the address is right; see its log."))
    return findings


def _print(findings: list[Finding]) -> None:
    console.print_table(
        "checks",
        ["", "check", "found"],
        [[_MARKS[each.state], each.check, each.found] for each in findings],
    )
    for each in findings:
        if each.advice:
            console.say(f"{_MARKS[each.state]}: {each.check}: {each.found}\n    {each.advice}")
    wrongs = sum(finding.state is State.WRONG for finding in findings)
    console.say(f"{wrongs} wrong" if wrongs else "nothing is wrong")


_MARKS: Final = {State.OK: "ok", State.WARNING: "warning", State.WRONG: "WRONG"}
