"""The processes of an installation: the readiness of each, and the postbacks in its spool.

`--process` and `MMS_PROCESSES` name the processes, each as `host:port` of an admin port. A name
with several addresses means several processes. A spool on another machine cannot be read, so the
counts of its ingress are used.
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
from workers.admin.doctor.spool_checks import SET_ASIDE

_MAX_RESPONSE_BYTES: Final = 2**22
"""More of a response is not read; `/metrics` of several processes has some hundred thousand."""

_REQUEST_ERRORS: Final = (aiohttp.ClientError, TimeoutError, OSError, ValueError)

_NOT_REACHED: Final = (
    "See its log and its supervisor; check that the address is that of its admin port."
)

_ADVICE: Final = {
    "redis": "Check that Redis runs, answers and accepts writes; then the worker continues.",
    "rabbitmq": "Check that RabbitMQ runs, no alarm is on, and each queue has a leader"
    " (`rabbitmq-diagnostics alarms`, `rabbitmqctl list_queues name state leader`).",
    "spool": "Make room on the spool's disk, or raise MMS_SPOOL_MAX_BYTES. The spool drains when"
    " RabbitMQ is available again.",
    "process": "One of its child processes does not answer; see its log.",
}


class _Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> tuple[str, int]:
    """The host and the port of a `host:port`; an IPv6 address is in brackets.

    Raises:
        SettingsError: it is not a `host:port`.
    """
    host, _, port = text.strip().rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not bare or (":" in bare) != host.startswith("[") or not port.isdecimal():
        raise SettingsError(f"{text!r} is not a host:port of an admin port, such as 10.0.0.5:9090")
    if not 0 < int(port) < 2**16:
        raise SettingsError(f"{text!r} has an invalid port; ports are 1 to 65535")
    return bare, int(port)


async def check_processes(named: Sequence[str]) -> AsyncIterator[Finding]:
    """Check the named processes.

    Args:
        named: each as `host:port`.
    """
    if not named:
        yield warning(
            "processes",
            "none was checked",
            "Name the admin ports of all mms-ingest and mms-worker with --process host:port or in"
            " MMS_PROCESSES. Only a process itself knows whether it is ready.",
        )
        return
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=CALL_LIMIT), trust_env=False
    ) as session:
        for findings in await asyncio.gather(*(_named(session, each) for each in named)):
            for finding in findings:
                yield finding


async def _named(session: aiohttp.ClientSession, text: str) -> list[Finding]:
    """Check one name, which may have the addresses of several processes."""
    try:
        addresses = await _addresses(*parse_address(text))
    except SettingsError as error:
        return [wrong(f"process {text}", "was not checked", str(error))]
    except _REQUEST_ERRORS as error:
        advice = "Correct the name, or repair the name server."
        return [wrong(f"process {text}", f"its name has no address: {reason(error)}", advice)]
    findings: list[Finding] = []
    for each in await asyncio.gather(*(_process(session, address) for address in addresses)):
        findings += each
    return findings


async def _addresses(host: str, port: int) -> list[_Address]:
    """All addresses of a name; only IPv4 if it has any, because a process may have both kinds."""
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
    except _REQUEST_ERRORS as error:
        return [wrong(check, f"does not answer: {reason(error)}", _NOT_REACHED)]
    lines = [line for line in text.splitlines() if line.strip()]
    if status not in {200, 503} or not lines or not all(map(_CONDITION.match, lines)):
        return [wrong(check, f"is not an admin port of ours: status {status}", _NOT_REACHED)]
    return [_readiness(check, status, lines), *await _spool(session, address)]


_CONDITION: Final = re.compile(r"(?:process \d+: )?(\w[\w ]*): (ok|degraded|not ready)\b")


def _readiness(check: str, status: int, lines: list[str]) -> Finding:
    """The conditions that are not `ok`, in the words of the process."""
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
    """The contents of an ingress's spool on any machine, from its metrics."""
    check = f"spooled at {address}"
    try:
        status, text = await _get(session, address, "/metrics")
        counts = _samples(text) if status == 200 else {}  # noqa: PLR2004
    except _REQUEST_ERRORS as error:
        return [warning(check, f"/metrics does not answer: {reason(error)}", _NOT_REACHED)]
    if "mms_ingest_spool_postbacks" not in counts:
        return []
    return [_waiting(check, counts), *_set_aside(address, counts)]


def _waiting(check: str, counts: dict[str, float]) -> Finding:
    postbacks = int(counts["mms_ingest_spool_postbacks"])
    if not postbacks:
        return ok(check, "nothing")
    age = counts.get("mms_ingest_spool_age_seconds", 0)
    found = f"{counted(postbacks, 'postback')}, the oldest for {age:.0f} s"
    advice = "They are published when RabbitMQ accepts them; keep the machine's disk until then."
    return warning(check, found, advice, follows=("rabbitmq",))


def _set_aside(address: _Address, counts: dict[str, float]) -> list[Finding]:
    if not (postbacks := int(counts.get("mms_ingest_set_aside_postbacks", 0))):
        return []
    found = f"{counted(postbacks, 'postback')} in batches larger than RabbitMQ accepts"
    return [wrong(f"set aside at {address}", found, SET_ASIDE)]


def _samples(text: str) -> dict[str, float]:
    """The gauges of the spool, summed up. If child processes share a spool, one of them has it."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if family.name.startswith(("mms_ingest_spool_", "mms_ingest_set_aside_")):
            sums[family.name] = sum(sample.value for sample in family.samples)
    return sums


async def _get(session: aiohttp.ClientSession, address: _Address, path: str) -> tuple[int, str]:
    async with session.get(f"http://{address}{path}", allow_redirects=False) as response:
        body = await response.content.read(_MAX_RESPONSE_BYTES)
        while (room := _MAX_RESPONSE_BYTES - len(body)) and (
            more := await response.content.read(room)
        ):
            body += more
        return response.status, body.decode(errors="replace")
