"""Each command stops cleanly on SIGINT, SIGTERM and SIGHUP."""

import functools
import os
import signal

import pytest

from deploy.local.services import Service
from shared.settings.settings import Settings
from tests.support.processes import Processes, until


def ended(service: Service) -> bool:
    return not service.is_alive()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_both_cleanly(
    settings: Settings, processes: Processes, number: signal.Signals
) -> None:
    for service in (processes.start_ingest(settings), processes.start_worker(settings)):
        assert service.pid is not None
        os.kill(service.pid, number)
        assert until(functools.partial(ended, service), within=15)
        assert "stopped" in service.log()
        assert "Traceback" not in service.log()
