"""The processes of a site: what each answers to `/readyz`, and how much waits in its spool.

They are named by `--process` and `MMS_PROCESSES`, each as `host:port` of an admin port. A name with
several addresses stands for several processes. A spool on another machine cannot be read, so what
waits in it is what its ingress counts.
"""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from shared.errors import SettingsError
from shared.process.cli import counted
from workers.admin.doctor.finding import CALL_LIMIT, Finding, ok, reason, warning, wrong
from workers.admin.doctor.machine import SET_ASIDE

_LARGEST: Final = 2**22
"""Bytes of an answer that are read; `/metrics` of several processes is some hundred thousand."""

_BROKEN: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)

_SETTINGS: Final = "See its log and its supervisor; see that the address is that of its admin port."

_ADVICE: Final = {
    "redis": "See Redis: it runs, answers and takes writes; then the worker goes on by itself.",
    "rabbitmq": "See RabbitMQ: it runs, no alarm is on, and each queue has a leader"
    " (`rabbitmq-diagnostics alarms`, `rabbitmqctl list_queues name state leader`).",
    "spool": "Make room on the spool's disk, or raise MMS_SPOOL_MAX_BYTES; RabbitMQ's return drains"
    " it.",
    "process": "One of its processes does not answer; see its log.",
}


class _Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> tuple[str, int]:
    """The host and the port of a `host:port`; an IPv6 address is in brackets.

    Raises:
        SettingsError: it is none.
    """
    host, _, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare) != host.startswith("[") or not port.isdecimal():
        raise SettingsError(f"{text!r} is no host:port of an admin port, such as 10.0.0.5:9090")
    if not 0 < int(port) < 2**16:
        raise SettingsError(f"{text!r} has a port that there is not: 1 to 65535")
    return bare, int(port)


async def check_processes(named: Sequence[str]) -> AsyncIterator[Finding]:
    """Every process that was named.

    Args:
        named: each `host:port`.
    """
    if not named:
        yield warning(
            "processes",
            "none was asked",
            "Name the admin ports of all mms-ingest and mms-worker with --process host:port, or in"
            " MMS_PROCESSES: whether a process is ready only it can tell.",
        )
        return
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=CALL_LIMIT), trust_env=False
    ) as session:
        for findings in await asyncio.gather(*(_named(session, each) for each in named)):
            for finding in findings:
                yield finding


async def _named(session: aiohttp.ClientSession, text: str) -> list[Finding]:
    """One name, which may be that of several processes."""
    try:
        addresses = await _addresses(*parse(text))
    except SettingsError as error:
        return [wrong(f"process {text}", "is not asked", str(error))]
    except _BROKEN as error:
        advice = "Correct the name, or the name server."
        return [wrong(f"process {text}", f"its name has no address: {reason(error)}", advice)]
    findings: list[Finding] = []
    for each in await asyncio.gather(*(_process(session, address) for address in addresses)):
        findings += each
    return findings


async def _addresses(host: str, port: int) -> list[_Address]:
    """All addresses of a name; of IPv4 alone if it has any, as the same process may have both."""
    async with asyncio.timeout(CALL_LIMIT):
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    hosts = sorted({str(address[0]) for *_, address in found})
    four = [each for each in hosts if ":" not in each]
    return [_Address(each, port) for each in four or hosts]


async def _process(session: aiohttp.ClientSession, address: _Address) -> list[Finding]:
    check = f"process {address}"
    try:
        status, text = await _get(session, address, "/readyz")
    except _BROKEN as error:
        return [wrong(check, f"does not answer: {reason(error)}", _SETTINGS)]
    lines = [line for line in text.splitlines() if line.strip()]
    if status not in {200, 503} or not lines or not all(map(_CONDITION.match, lines)):
        return [wrong(check, f"is no admin port of ours: status {status}", _SETTINGS)]
    return [_readiness(check, status, lines), *await _spool(session, address)]


_CONDITION: Final = re.compile(r"(?:process \d+: )?(\w[\w ]*): (ok|degraded|not ready)\b")


def _readiness(check: str, status: int, lines: list[str]) -> Finding:
    """What is not `ok`, as the process words it."""
    problems = [line for line in lines if not line.endswith(": ok")]
    if not problems:
        return ok(check, "ready")
    found = "; ".join(problems)
    needs = [match[1] for line in problems if (match := _CONDITION.match(line))]
    advice = next((_ADVICE[need] for need in needs if need in _ADVICE), "See its log.")
    follows = tuple(need for need in needs if need in {"redis", "rabbitmq", "spool"})
    finding = warning if status == 200 else wrong  # noqa: PLR2004
    return finding(check, reason(ValueError(found)), advice, follows=follows)


async def _spool(session: aiohttp.ClientSession, address: _Address) -> list[Finding]:
    """What waits in the spool of an ingress, wherever that is."""
    check = f"spooled at {address}"
    try:
        status, text = await _get(session, address, "/metrics")
        counts = _samples(text) if status == 200 else {}  # noqa: PLR2004
    except _BROKEN as error:
        return [warning(check, f"/metrics does not answer: {reason(error)}", _SETTINGS)]
    if "mms_ingest_spool_postbacks" not in counts:
        return []
    return [_waiting(check, counts), *_set_aside(address, counts)]


def _waiting(check: str, counts: dict[str, float]) -> Finding:
    postbacks = int(counts["mms_ingest_spool_postbacks"])
    if not postbacks:
        return ok(check, "nothing")
    age = counts.get("mms_ingest_spool_age_seconds", 0)
    found = f"{counted(postbacks, 'postback')}, the oldest for {age:.0f} s"
    advice = "They go to RabbitMQ when it takes them again; keep that machine's disk until then."
    return warning(check, found, advice, follows=("rabbitmq",))


def _set_aside(address: _Address, counts: dict[str, float]) -> list[Finding]:
    if not (postbacks := int(counts.get("mms_ingest_set_aside_postbacks", 0))):
        return []
    found = f"{counted(postbacks, 'postback')} in batches larger than RabbitMQ takes"
    return [wrong(f"set aside at {address}", found, SET_ASIDE)]


def _samples(text: str) -> dict[str, float]:
    """The gauges of the spool, summed up; of several processes that share one, one has them."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(("mms_ingest_spool_", "mms_ingest_set_aside_")):
            sums[family.name] = sum(sample.value for sample in family.samples)
    return sums


async def _get(session: aiohttp.ClientSession, address: _Address, path: str) -> tuple[int, str]:
    async with session.get(f"http://{address}{path}", allow_redirects=False) as answer:
        body = await answer.content.read(_LARGEST)
        while len(body) < _LARGEST and (more := await answer.content.read(_LARGEST - len(body))):
            body += more
        return answer.status, body.decode(errors="replace")
