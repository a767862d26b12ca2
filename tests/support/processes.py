"""The real commands as processes, and functions that wait for them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from deploy.local.ports import free_port
from deploy.local.services import Service
from shared.settings.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """The `MMS_*` variables that give a process these settings, all but the rules."""
    return {
        f"MMS_{name.upper()}": ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        for name in settings.__struct_fields__
        if name != "rules" and (value := getattr(settings, name)) is not None
    }


def until(condition: Callable[[], bool], within: float = 10.0) -> bool:
    """Whether a condition became true within some seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def metric(service: Service, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(service.ask("/metrics")[1])
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class Processes:
    """Starts `mms-ingest` and `mms-worker`; the fixture stops those that a test leaves.

    The services have `kill`, `stop`, `pause`, `resume`, `restart`, `is_alive`, `log` (the output)
    and `ask` (a path of the admin port).
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._services: list[Service] = []

    def start_ingest(
        self, settings: Settings, *arguments: str, wait: bool = True, admin_port: int = 0
    ) -> Service:
        """Start an ingress on `settings.ingest_port` and wait until it is ready, if `wait`."""
        return self._start("mms-ingest", settings, arguments, admin_port, wait=wait)

    def start_worker(
        self, settings: Settings, *arguments: str, wait: bool = True, admin_port: int = 0
    ) -> Service:
        """Start a worker and wait until it is ready (it consumes), if `wait`."""
        return self._start("mms-worker", settings, arguments, admin_port, wait=wait)

    def stop(self) -> None:
        """Stop all that still runs, the last started first."""
        for service in reversed(self._services):
            service.stop()

    def _start(
        self,
        name: str,
        settings: Settings,
        arguments: Sequence[str],
        admin_port: int,
        *,
        wait: bool,
    ) -> Service:
        service = Service(
            name,
            settings=environment(settings),
            admin_port=admin_port or free_port(),
            arguments=arguments,
            log_path=self._directory / f"{name}-{len(self._services)}.log",
        )
        self._services.append(service)
        if wait:
            service.start()
        else:
            service.launch()
        return service
