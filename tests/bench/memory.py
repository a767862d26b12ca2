"""Memory: the resident size of ingress and worker while an hour's traffic passes in minutes."""

import statistics
import time
from collections.abc import Sequence
from typing import Final

from tests.bench import endtoend, traffic, wrk
from tests.bench.measure import Spread, rss
from tests.bench.results import Lines, Section, Table
from tests.bench.scale import Scale
from tests.bench.site import Site, say

CONNECTIONS: Final = 16
SAMPLE_INTERVAL: Final = 0.5
"""Seconds between two readings of the resident size."""

NOTE: Final = """\
Ingress, worker, RabbitMQ and Redis get as much load as `wrk` with few connections can send, so that
the postbacks of an hour pass in minutes. The resident size is read twice a second. The growth is
that from the second quarter of the time to the last. The first quarter is left out, because buffers
and caches reach their size in it.
"""


def measure(site: Site, scale: Scale) -> Section:
    """One long load, watched."""
    site.reset()
    script = site.directory / "memory.lua"
    traffic.write_lua(script, "soak")
    with endtoend.ours(site) as pipeline:
        pids = {name: child.pid or 0 for name, child in pipeline.children.items()}
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        say(f"memory: {scale.soak} s of load")
        load = wrk.start(pipeline.port, scale.soak, script, CONNECTIONS)
        began = time.monotonic()
        while load.poll() is None:
            time.sleep(SAMPLE_INTERVAL)
            for name, pid in pids.items():
                seen[name].append((time.monotonic() - began, rss(pid) / 2**20))
        done = wrk.finish(load)
    figures = {"memory.postbacks": Spread.of([float(done.requests)])}
    rows = []
    for name, samples in seen.items():
        sizes = [size for _, size in samples]
        early, late = _quarter(sizes, 1), _quarter(sizes, 3)
        figures[f"memory.{name}.mib"] = Spread.of([late])
        figures[f"memory.{name}.growth"] = Spread.of([late / early - 1])
        rows.append((name, f"{early:.1f}", f"{late:.1f}", f"{late / early - 1:+.1%}"))
        say(f"memory: {name}: {late:.1f} MiB, {late / early - 1:+.1%}")
    return Section(
        "Memory",
        NOTE,
        figures,
        [
            Table(
                f"Resident MiB over {done.requests:,} postbacks in {done.seconds:.0f} s",
                ("", "second quarter", "last quarter", "growth"),
                rows,
            )
        ],
        [
            Lines(
                "memory",
                "Resident size under load",
                "MiB",
                "seconds",
                [(f"mms-{name}", samples) for name, samples in seen.items()],
            )
        ],
    )


def _quarter(values: Sequence[float], number: int) -> float:
    """The median of one quarter, counted from 0."""
    length = max(1, len(values) // 4)
    return statistics.median(values[number * length : (number + 1) * length])
