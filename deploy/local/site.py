"""`make site`: what deploy/docs/deployment.md sets up, on this machine, until Ctrl-C.

Two ingresses, two workers, HAProxy before the ingresses and Prometheus with the rules, from the
same haproxy.cfg and prometheus.yml that a real site uses, only on ports that are free here; a page
that draws Grafana's dashboards; and a private RabbitMQ and Redis where no setting names others.
What ends is started again.
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

from deploy.local.child import Child
from deploy.local.dashboards import Dashboards
from deploy.local.keep import Keeper, only_one, progress, say
from deploy.local.plan import environment, private_servers
from deploy.local.ports import HOST, Ports, is_free
from deploy.local.prometheus import Prometheus
from deploy.local.services import Service
from ingest.access_control.policy import PATH
from shared.errors import PostbacksError, StartError
from shared.process import cli
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings
from workers.admin.upgrade import upgrade

DEPLOY: Final = Path(__file__).parents[1]

PROXY: Final = 8000
PROXY_ADMIN: Final = 8404
PROMETHEUS: Final = 9099
DASHBOARDS: Final = 9098
RABBITMQ_METRICS: Final = 15692
INGRESSES: Final = {"1": (8081, 9101), "2": (8082, 9102)}
WORKERS: Final = {"1": 9201, "2": 9202}
"""Ports as the systemd units, haproxy.cfg and prometheus.yml have them."""


class Site:
    """Everything that runs, by what it is for.

    Args:
        var: folder for all that is kept.
        given: settings that hold for every process.
    """

    def __init__(self, var: Path, given: Settings, environ: Mapping[str, str]) -> None:
        self._var = var
        ports = Ports(var / "ports.json")
        metrics_port = ports.take("rabbitmq-metrics", RABBITMQ_METRICS)
        servers = private_servers(var, ports, given, environ, metrics_port)
        urls = {name: server.url for name, server in servers.items()}
        self.urls = environment(urls)
        self._settings = msgspec.structs.replace(given, **urls)
        self._ours = set(urls)
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
        self.groups: Sequence[Sequence[Child]] = (
            list(servers.values()),
            [*self._ingresses, *self._workers],
            [self._proxy, self._prometheus, self._dashboards],
        )

    def greeting(self) -> str:
        """Where everything is, and what to try."""
        url = f"http://{HOST}:{self._proxy.port}{PATH}"
        simulate = f"mms-simulate {url} --count 1000 --format mixed --duplicates 0.1 --verify"
        environ = shlex.quote(str(self._var / "env"))
        return (
            f"\nReady. Postbacks go to {url} (the proxy's own page: {HOST}:"
            f"{self._proxy.admin_port}).\nPrometheus: {self._prometheus.url}\n"
            f"Dashboards: {self._dashboards.url}\n"
            f"Admin ports of ingresses and workers: {', '.join(map(str, self._admin_ports()))}\n\n"
            f"From another terminal, play the provider and look what is wrong:\n\n"
            f"  . {environ}\n  .venv/bin/{simulate}\n  .venv/bin/mms-admin doctor\n\n"
            f"Logs are in {self._var}. Ctrl-C stops everything.\n"
        )

    async def upgrade(self) -> None:
        """Bring data of a release before to this one; servers that are not ours are left alone."""
        if "amqp_url" in self._ours:
            await upgrade(self._settings, progress)

    def write_env(self) -> None:
        """For `.` in a shell: how to reach the servers, and the proxy instead of an ingress."""
        processes = ",".join(f"{HOST}:{port}" for port in self._admin_ports())  # for doctor
        known = self.urls | environment({"ingest_port": self._proxy.port, "processes": processes})
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in known.items()]
        (self._var / "env").write_text("".join(lines))

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
            name, self.urls | own, ports.take(f"ingest-{name}-admin", admin_port), self._var
        )

    def _worker(self, name: str, ports: Ports) -> Service:
        worker = Service(
            "mms-worker",
            settings=self.urls,
            admin_port=ports.take(f"worker-{name}-admin", WORKERS[name]),
            log_path=self._var / "log" / f"mms-worker-{name}.log",
        )
        worker.name = f"mms-worker {name}"
        return worker


class Ingress(Service):
    """An ingress, and what the proxy has to know of it."""

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
    """HAProxy with the haproxy.cfg that we ship."""

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
    parser.add_argument("--var", type=Path, default=Path("var/site"), help="folder for the data")
    try:
        asyncio.run(_main(parser.parse_args().var.absolute()))
    except (PostbacksError, BaseExceptionGroup) as error:
        if (known := cli.only_ours(error)) is None:
            raise
        say(f"\nNot running: {known}")
        raise SystemExit(1) from None


async def _main(var: Path) -> None:
    told = cli.stop_event()
    with only_one(var, "make site"):
        warn_of_unknown_variables()
        site = Site(var, load_settings(), os.environ)
        site.write_env()
        keeper = Keeper(site.groups, site.upgrade)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(_work(site, keeper))
                await told.wait()
                work.cancel()
        finally:
            await keeper.stop()
            progress(f"stopped; the data is in {var}")


async def _work(site: Site, keeper: Keeper) -> None:
    await keeper.start()
    say(site.greeting())
    await keeper.keep()


if __name__ == "__main__":
    main()
