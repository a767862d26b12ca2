"""The number of fuzzing examples: some seconds in `make test`, minutes in `make fuzz`."""

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))
"""Examples of each test."""

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def resident() -> int:
    """Bytes of memory that this process has."""
    with open("/proc/self/statm", encoding="ascii") as statm:  # noqa: PTH123 (not a real file)
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
