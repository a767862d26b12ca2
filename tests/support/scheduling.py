"""How tests are spread over processes: each test alone, but some files as a whole.

pytest-xdist's own `--dist loadgroup` has no effect with pytest 9.2: it groups by an attribute that
pytest no longer reads.
"""

from typing import Final

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # has no py.typed

WHOLE_FILES: Final = frozenset(
    {
        "tests/chaos/test_cluster.py",  # there is one cluster, with networks of this machine
        "tests/integration/test_seeing.py",  # the tests share an installation with Prometheus
    }
)
"""Files whose tests run one after another in one process."""


DEFAULT_PORTS: Final = "tests/e2e/"
"""Folder whose tests run one after another in one process: they use the ports that `make run` and
the commands have by default, and two of them at once would take each other's."""


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # untyped, see above
    """Gives a process the next test, or the next whole file, as soon as it is free."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith(DEFAULT_PORTS):
            return DEFAULT_PORTS
        return file if file in WHOLE_FILES else nodeid
