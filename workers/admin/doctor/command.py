"""`mms-admin doctor`: all checks, as a table or as JSON."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Final

import click

from shared.errors import SettingsError
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.doctor.broker import check_rabbitmq
from workers.admin.doctor.finding import Finding, State, causes_first, ok, reason, wrong
from workers.admin.doctor.machine import check_machine
from workers.admin.doctor.processes import check_processes, parse
from workers.admin.doctor.state import check_redis

CHECK_LIMIT: Final = 45.0
"""Seconds that one part of the site may take, whatever hangs; all are looked at side by side."""


@click.command()
@click.option(
    "--process",
    "processes",
    multiple=True,
    metavar="HOST:PORT",
    help="Ask this admin port too; may be given often. See MMS_PROCESSES.",
)
@click.option(
    "--spool",
    "spools",
    multiple=True,
    metavar="PATH",
    help="Look at this spool too, a path or a pattern; may be given often.",
)
@console.json_option
def doctor(processes: tuple[str, ...], spools: tuple[str, ...], *, as_json: bool) -> None:
    """Look what is wrong with this site, and say what to do about it.

    Checks the settings, Redis (version, persistence, eviction, memory, rights, clock), RabbitMQ
    (each node, version, rights, topology, consumers, dead letters), each spool (disk, room, what
    waits in it) and each process that is named (whether it is ready). Causes come before what
    follows from them. Run it where mms-ingest or mms-worker runs, with the same settings and as the
    same user. It changes nothing and takes no message from any queue, so a quorum queue without a
    leader looks empty to it: the processes tell. It ends within a minute, whatever hangs.

    Exit status: 0 nothing is wrong (there may be warnings), 1 something is, 2 it was called
    wrongly.

    \b
    Examples:
      mms-admin doctor
      mms-admin doctor --process 10.0.0.5:9090 --process 10.0.0.6:9091
      mms-admin doctor --spool '/var/lib/mms-postbacks/*/spool.db'
      mms-admin doctor --json | jq -r 'select(.state != "ok") | .advice'
    """  # noqa: D301 (click reads the backslash)
    findings = console.run(_examine(processes, spools))
    if as_json:
        for finding in findings:
            console.print_json(finding)
    else:
        _print(findings)
    raise SystemExit(any(finding.state is State.WRONG for finding in findings))


async def _examine(processes: Sequence[str], spools: Sequence[str]) -> list[Finding]:
    for each in processes:
        parse(each)
    try:
        loaded = load_settings()
    except SettingsError as error:
        advice = "Correct it; nothing starts like this, and nothing more was looked at."
        return [wrong("settings", str(error), advice)]
    findings = [ok("settings", "can be read")]
    parts = {
        "redis": check_redis(loaded),
        "rabbitmq": check_rabbitmq(loaded),
        "spool": check_machine(loaded, spools),
        "processes": check_processes([*loaded.processes, *processes]),
    }
    for found in await asyncio.gather(*(_found(*part) for part in parts.items())):
        findings += found
    return causes_first(findings)


async def _found(name: str, check: AsyncIterator[Finding]) -> list[Finding]:
    """All that a check finds. Whatever a peer does to it is one more finding."""
    findings: list[Finding] = []
    try:
        async with asyncio.timeout(CHECK_LIMIT):
            async for finding in check:
                findings.append(finding)  # noqa: PERF401 - what came before an error counts
    except TimeoutError:
        advice = "Something answers slowly: see what came before this line, and its log."
        findings.append(wrong(name, f"not done within {CHECK_LIMIT:g} s", advice))
    except Exception as error:  # noqa: BLE001 - nothing is tried again, and the others are looked at
        found = f"cannot be looked at: {type(error).__name__}: {reason(error)}"
        findings.append(wrong(name, found, "See that the address is right; see its log."))
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
