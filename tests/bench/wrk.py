"""The load generator `wrk`, from Debian: one thread, keep-alive, a closed loop."""

import json
import resource
import subprocess
from pathlib import Path
from typing import Final

import msgspec

from deploy.local.ports import HOST
from shared.errors import PostbacksError
from tests.bench import traffic

CONNECTIONS: Final = 256
"""Enough to keep a server busy that waits for RabbitMQ: with fewer, the CPU idles and the result is
that of the load generator; see `connections`."""


class Load(msgspec.Struct, frozen=True):
    """The result of `wrk`.

    Attributes:
        requests: responses, of any status.
        refused: responses that were not 2xx.
        broken: connections that failed or timed out.
        p50, p99, p999: milliseconds until the response, under full load because of the closed loop.
        cpu: CPU seconds of wrk itself.
    """

    requests: int
    seconds: float
    refused: int
    broken: int
    p50: float
    p99: float
    p999: float
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


class LoadError(PostbacksError):
    """A load had errors, so its figures would be useless."""


def run(
    port: int, seconds: int, script: Path, connections: int = CONNECTIONS, *, strict: bool = True
) -> Load:
    """Load one port for some seconds.

    Raises:
        LoadError: a request was not answered 200.
    """
    return finish(start(port, seconds, script, connections), strict=strict)


def start(port: int, seconds: int, script: Path, connections: int) -> subprocess.Popen[str]:
    """Start a load without waiting for it; see `finish`."""
    return subprocess.Popen(
        (
            *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"),
            *("-s", str(script), f"http://{HOST}:{port}{traffic.PATH}"),
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], *, strict: bool = True) -> Load:
    """Wait for the end of a load; its result."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        output, _ = process.communicate(timeout=600)
    except BaseException:
        process.kill()
        raise
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        load = msgspec.convert(json.loads(output.strip().rpartition("\n")[2]), Load)
    except ValueError as error:
        raise LoadError(f"wrk failed: {output[-500:]}") from error
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    load = msgspec.structs.replace(load, cpu=spent)
    if strict and (load.refused or load.broken):
        raise LoadError(f"{load.refused} responses were not 200, {load.broken} connections failed")
    return load
