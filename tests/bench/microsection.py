"""The section "Micro" of the report; it runs in the Python of the peers, which has pydantic."""

import json
import subprocess
from typing import Final

from tests.bench.measure import Spread, number
from tests.bench.results import Section, Table
from tests.bench.scale import Scale
from tests.bench.site import ROOT, Site, say

NOTE: Final = """\
Nanoseconds for one call in one thread, the median of seven rounds. A line with a colon is an
alternative for the line above it; json.loads and ElementTree only parse, pydantic also validates.
"""


def measure(site: Site, _scale: Scale) -> Section:
    """Run `tests.bench.micro`."""
    say("micro: measuring each pure step")
    done = subprocess.run(
        (str(site.peers_python), "-m", "tests.bench.micro"),
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
        timeout=120,
    )
    spreads = {name: Spread.of(times) for name, times in json.loads(done.stdout).items()}
    rows = [
        (name, f"{each.median:,.0f}", f"{number(each.least)} to {number(each.most)}")
        for name, each in spreads.items()
    ]
    figures = {f"micro.{name}": spread for name, spread in spreads.items()}
    return Section("Micro", NOTE, figures, [Table("Pure steps", ("", "ns", "range"), rows)])
