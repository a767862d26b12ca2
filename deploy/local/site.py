"""`make site`: the site that deploy/docs/deployment.md describes, on this machine, until Ctrl-C.

Two ingresses, two workers, HAProxy before the ingresses, Prometheus with the rules, and a page
that draws Grafana's dashboards. It uses the haproxy.cfg and prometheus.yml of a real site, only on
ports that are free here. It starts a private RabbitMQ and Redis unless settings name others. What
ends is started again.
"""

import argparse
import asyncio
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from deploy.local import foreground
from deploy.local.child import Child
from deploy.local.dashboards import Dashboards
from deploy.local.foreground import progress, say
from deploy.local.plan import environment, private_servers, write_env
from deploy.local.ports import HOST, Ports, is_free
from deploy.local.prometheus import Prometheus
from deploy.local.services import Service
from deploy.local.supervised import ChildExits, supervised
from ingest.access_control.policy import PATH
from shared.errors import StartError
from shared.process.supervisor import Supervisor
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from workers.admin.upgrade.steps import upgrade

DEPLOY: Final = Path(__file__).parents[1]

PROXY: Final = 8000
PROXY_ADMIN: Final = 8404
PROMETHEUS: Final = 9099
DASHBOARDS: Final = 9098
RABBITMQ_METRICS: Final = 15692
INGRESSES: Final = {"1": (8081, 9101), "2": (8082, 9102)}
WORKERS: Final = {"1": 9201, "2": 9202}
"""The ports in the systemd units, haproxy.cfg and prometheus.yml."""


class Site:
    """Everything that runs.

    Args:
        var: folder for all data.
        settings: for every process.
        environ: the environment, for which settings the user has set.
    """

    def __init__(self, var: Path, settings: Settings, environ: Mapping[str, str]) -> None:
        self._var = var
        ports = Ports(var / "ports.json")
        metrics_port = ports.take("rabbitmq-metrics", RABBITMQ_METRICS)
        servers = private_servers(var, ports, settings, environ, metrics_port)
        urls = {name: server.url for name, server in servers.items()}
        self._urls = environment(urls)
        self._settings = msgspec.structs.replace(settings, **urls)
        self._has_private_rabbitmq = "amqp_url" in urls
        self._ingresses = [self._ingress(name, ports) for name in INGRESSES]
        self._workers = [self._worker(name, ports) for name in WORKERS]
        self._proxy = Proxy(var, ports, [each.env for each in self._ingresses])
        targets = {
            "mms-ingest": [each.admin_port for each in self._ingresses],
            "mms-worker": [each.admin_port for each in self._workers],
            "haproxy": [self._proxy.admin_port],
            "rabbitmq": [metrics_port] if "amqp_url" in servers else [],
        }
        self._prometheus = Prometheus(
            var / "prometheus",
            {job: [f"{HOST}:{port}" for port in found] for job, found in targets.items()},
            port=ports.take("prometheus", PROMETHEUS),
        )
        self._dashboards = Dashboards(
            self._prometheus.url,
            log_path=var / "log" / "dashboards.log",
            port=ports.take("dashboards", DASHBOARDS),
        )
        self._servers = list(servers.values())

    async def work(self) -> None:
        """Start everything and run until cancelled; then stop what was started.

        Raises:
            BaseExceptionGroup: with a `StartError` when something did not start.
        """
        self._write_env()
        exits = ChildExits()
        around: list[Child] = [self._proxy, self._prometheus, self._dashboards]
        with exits.watch():
            async with Supervisor(say) as supervisor:
                await supervisor.start(supervised(self._servers, exits))
                await self._upgrade()
                await supervisor.start(supervised([*self._ingresses, *self._workers], exits))
                await supervisor.start(supervised(around, exits))
                say(self._greeting())
                await asyncio.Event().wait()

    def _greeting(self) -> str:
        """Where everything is, and what to try."""
        url = f"http://{HOST}:{self._proxy.port}{PATH}"
        simulate = f"mms-simulate {url} --count 1000 --format mixed --duplicates 0.1 --verify"
        env = shlex.quote(str(self._var / "env"))
        return (
            f"\nReady. Send postbacks to {url} (HAProxy's own page: {HOST}:"
            f"{self._proxy.admin_port}).\nPrometheus: {self._prometheus.url}\n"
            f"Dashboards: {self._dashboards.url}\n"
            f"Admin ports of ingresses and workers: {', '.join(map(str, self._admin_ports()))}\n\n"
            f"In another terminal, send simulated traffic and look for faults:\n\n"
            f"  . {env}\n  .venv/bin/{simulate}\n  .venv/bin/mms-admin doctor\n\n"
            f"Logs are in {self._var}. Ctrl-C stops everything.\n"
        )

    async def _upgrade(self) -> None:
        """Upgrade the data of an earlier release; the user's own servers are left alone."""
        if self._has_private_rabbitmq:
            await upgrade(self._settings, progress)

    def _write_env(self) -> None:
        """Commands reach the proxy as the ingress; `mms-admin doctor` asks all processes."""
        processes = ",".join(f"{HOST}:{port}" for port in self._admin_ports())
        chosen = {"ingest_port": self._proxy.port, "processes": processes}
        write_env(self._var, self._urls | environment(chosen))

    def _admin_ports(self) -> list[int]:
        return [service.admin_port for service in (*self._ingresses, *self._workers)]

    def _ingress(self, name: str, ports: Ports) -> "Ingress":
        port, admin_port = INGRESSES[name]
        own = environment(
            {
                "ingest_port": ports.take(f"ingest-{name}", port),
                "spool_path": self._var / f"ingest-{name}" / "spool.db",
            }
        )
        return Ingress(
            name, self._urls | own, ports.take(f"ingest-{name}-admin", admin_port), self._var
        )

    def _worker(self, name: str, ports: Ports) -> Service:
        worker = Service(
            "mms-worker",
            settings=self._urls,
            admin_port=ports.take(f"worker-{name}-admin", WORKERS[name]),
            log_path=self._var / "log" / f"mms-worker-{name}.log",
        )
        worker.name = f"mms-worker {name}"
        return worker


class Ingress(Service):
    """An ingress, and the variables by which haproxy.cfg finds it."""

    def __init__(self, name: str, settings: Mapping[str, str], admin_port: int, var: Path) -> None:
        super().__init__(
            "mms-ingest",
            settings=settings,
            admin_port=admin_port,
            log_path=var / "log" / f"mms-ingest-{name}.log",
        )
        self.name = f"mms-ingest {name}"
        self.env = {
            f"MMS_INGRESS_{name}": f"{HOST}:{settings['MMS_INGEST_PORT']}",
            f"MMS_INGRESS_{name}_ADMIN_PORT": str(admin_port),
        }


class Proxy(Child):
    """HAProxy with deploy/haproxy/haproxy.cfg."""

    def __init__(self, var: Path, ports: Ports, ingresses: Sequence[Mapping[str, str]]) -> None:
        self.port = ports.take("proxy", PROXY)
        self.admin_port = ports.take("proxy-admin", PROXY_ADMIN)
        env = {
            "MMS_PROXY_BIND": f"{HOST}:{self.port}",
            "MMS_PROXY_ADMIN": f"{HOST}:{self.admin_port}",
        }
        for ingress in ingresses:
            env.update(ingress)
        super().__init__(
            "HAProxy",
            ("haproxy", "-db", "-f", str(DEPLOY / "haproxy" / "haproxy.cfg")),
            log_path=var / "log" / "haproxy.log",
            env=os.environ | env,
        )

    def prepare(self) -> None:
        if not is_free(self.port):
            raise StartError(f"{self.name} cannot be started: port {self.port} is taken")

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/healthz", timeout=2):
                return True
        except (urllib.error.URLError, OSError):
            return False


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make site", description=__doc__)
    parser.add_argument("--var", type=Path, default=Path("var/site"), help="folder for all data")
    var: Path = parser.parse_args().var.absolute()

    async def work() -> None:
        await Site(var, load_settings(), os.environ).work()

    foreground.run("make site", var, work)


if __name__ == "__main__":
    main()
