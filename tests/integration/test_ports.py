"""Ports of `make run` and `make site`: two installations on one machine never share one."""

import subprocess
import sys
from pathlib import Path

from deploy.local.ports import RANGE, Ports, free_port
from tests.support.port_ranges import MAX_PROCESSES, ports_of

_ANOTHER = """
import pathlib, sys
from deploy.local.ports import Ports
print(Ports(pathlib.Path(sys.argv[1])).take("ingest", int(sys.argv[2])), flush=True)
sys.stdin.read()
"""


def test_a_port_stays_reserved_while_its_server_restarts(tmp_path: Path) -> None:
    usual = free_port()
    another = subprocess.Popen(
        (sys.executable, "-c", _ANOTHER, str(tmp_path / "another.json"), str(usual)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with another:
        assert another.stdout is not None
        assert int(another.stdout.readline()) == usual
        # Nothing listens there at this moment, as when an ingress is restarted.
        assert Ports(tmp_path / "ports.json").take("ingest", usual) != usual
        another.communicate()
    assert Ports(tmp_path / "later.json").take("ingest", usual) == usual


def test_the_next_run_gets_the_same_ports(tmp_path: Path) -> None:
    usual = free_port()
    first = Ports(tmp_path / "ports.json")
    taken = [first.take("one", usual), first.take("two", usual)]
    assert taken[0] == usual != taken[1]
    second = Ports(tmp_path / "ports.json")
    assert [second.take("one", usual), second.take("two", usual)] == taken


def test_a_free_port_does_not_come_again_before_all_others() -> None:
    drawn = [free_port() for _ in range(1_000)]
    assert len(set(drawn)) == len(drawn)


def test_processes_of_a_test_run_have_different_ports() -> None:
    drawn = [port for process in range(MAX_PROCESSES) for port in ports_of(process)]
    assert len(set(drawn)) == len(drawn) == len(RANGE)
    assert set(drawn) == set(RANGE)
