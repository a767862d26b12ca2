"""`make run`: everything on this machine, until Ctrl-C.

Starts a private RabbitMQ and a private Redis (or uses those that `MMS_AMQP_URL` and
`MMS_REDIS_URL` name), one ingress and one worker. Prints where to POST, and each event when it is
published. Starts again what ends. All data is in one folder; the next run in that folder uses the
same data and the same ports.
"""

import argparse
import asyncio
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from deploy.local import foreground
from deploy.local.child import Child
from deploy.local.foreground import progress, say
from deploy.local.plan import environment, is_set, private_servers, write_env
from deploy.local.ports import HOST, Ports
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service, command
from deploy.local.supervised import ChildExits, supervised
from deploy.local.watch import watch
from ingest.access_control.policy import PATH
from shared.errors import StartError
from shared.process.supervisor import Supervisor
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from workers.admin.upgrade.steps import upgrade

DEMO: Final = ("--count", "200", "--rate", "20", "--format", "mixed", "--duplicates", "0.1")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--var", type=Path, default=Path("var"), help="folder for all data")
    parser.add_argument("--demo", action="store_true", help="also send simulated traffic")
    arguments = parser.parse_args()
    var: Path = arguments.var

    async def work() -> None:
        await Run(_plan(var, load_settings(), os.environ), var, demo=arguments.demo).work()

    foreground.run("make run", var, work)


class Local(NamedTuple):
    """What runs here.

    Attributes:
        settings: those that the services get.
        environment: the settings that this command chose, as `MMS_*` variables.
        servers: those that this command starts; they are stopped last.
        services: the ingress and the worker.
    """

    settings: Settings
    environment: dict[str, str]
    servers: Sequence[RabbitMQ | Redis]
    services: Sequence[Service]


def _plan(var: Path, settings: Settings, environ: Mapping[str, str]) -> Local:
    """Decide what to start and on which ports; what the user has set stays as it is."""
    ports = Ports(var / "ports.json")
    servers = private_servers(var, ports, settings, environ)
    chosen: dict[str, str | int] = {name: server.url for name, server in servers.items()}
    if not is_set("ingest_port", settings, environ):
        chosen["ingest_port"] = ports.take("ingest", 8080)
    if not is_set("spool_path", settings, environ):
        chosen["spool_path"] = str(var / "spool.db")
    variables = environment(chosen)
    services = [
        Service(
            name,
            settings=variables,
            admin_port=ports.take(f"{name}-admin", usual),
            log_path=var / "log" / f"{name}.log",
        )
        for name, usual in (("mms-ingest", 9090), ("mms-worker", 9091))
    ]
    replaced = msgspec.structs.replace(settings, **chosen)
    return Local(replaced, variables, list(servers.values()), services)


class Run:
    """One run, from the first start to the last stop.

    Args:
        var: folder for all data.
        demo: whether to send simulated traffic.
    """

    def __init__(self, local: Local, var: Path, *, demo: bool) -> None:
        self._local = local
        self._var = var
        self._demo = demo
        self._exits = ChildExits()
        sources = local.settings.sources
        self._source = "default" if "default" in sources else sources[0]
        self._url = _url(local.settings)

    async def work(self) -> None:
        """Start everything and show events, until cancelled; then stop what was started.

        Raises:
            BaseExceptionGroup: with a `StartError` when something did not start.
        """
        admin_ports = ",".join(f"{HOST}:{service.admin_port}" for service in self._local.services)
        # `mms-admin doctor` asks the processes that this setting names.
        write_env(self._var, self._local.environment | environment({"processes": admin_ports}))
        with self._exits.watch():
            async with Supervisor(say) as supervisor:
                await supervisor.start(supervised(self._local.servers, self._exits))
                await self._upgrade()
                await supervisor.start(supervised(self._local.services, self._exits))
                await self._show_events()

    async def _upgrade(self) -> None:
        """Upgrade the data of an earlier release; the user's own servers are left alone."""
        if any(isinstance(server, RabbitMQ) for server in self._local.servers):
            await upgrade(self._local.settings, progress)

    async def _show_events(self) -> None:
        """Print how to send a postback, then each event and dead letter, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            subscribed = asyncio.Event()
            tasks.create_task(watch(self._local.settings, say, subscribed))
            await subscribed.wait()
            say(self._greeting())
            if self._demo:
                tasks.create_task(self._send_demo())

    async def _send_demo(self) -> None:
        simulator = Child(
            "mms-simulate",
            (command("mms-simulate"), self._url, "--source", self._source, *DEMO),
            log_path=self._var / "log" / "mms-simulate.log",
            env=os.environ | self._local.environment,
        )
        try:
            await asyncio.to_thread(simulator.start)
            await self._exits.wait(simulator)
            say(f"\nThe simulated traffic has ended:\n\n{simulator.log().rstrip()}\n")
        except StartError as error:
            say(str(error))
        finally:
            await asyncio.to_thread(simulator.stop)

    def _greeting(self) -> str:
        now = datetime.now(UTC)
        tracking_id = f"try-{now:%Y%m%d-%H%M%S}"
        admin_ports = " and ".join(f"{HOST}:{each.admin_port}" for each in self._local.services)
        show = f"{os.path.relpath(command('mms-admin'))} show {tracking_id}"
        if not _usual_servers(self._local.settings):
            show = f". {_sourced(self._var / 'env')}; {show}"
        url = self._url if self._source == "default" else f"{self._url}/{self._source}"
        return (
            f"\nReady. Send postbacks to {url} (health and metrics: {admin_ports}).\n"
            f"In another terminal, send a postback and look up its record:\n\n"
            f"  {_curl(url, tracking_id, now)}\n"
            f"  {show}\n\n"
            f"Logs are in {self._var}. Ctrl-C stops everything. Events:\n"
        )


def _url(settings: Settings) -> str:
    """The URL for postbacks of the source `default`."""
    host = HOST if settings.ingest_host in {"0.0.0.0", "::"} else settings.ingest_host  # noqa: S104
    return f"http://{host}:{settings.ingest_port}{PATH}"


def _curl(url: str, tracking_id: str, now: datetime) -> str:
    """A line to paste: it sends the postback of a delivered message."""
    postback = {
        "origin": "MMS_MT",
        "code": "N102",
        "sent-as": "MMS",
        "status": "Delivered",
        "mms-id": "35674",
        "from": "28444",
        "to": "12065550123",
        "tracking-id": tracking_id,
        "operator-id": "31003",
        "operator-name": "Sprint",
        "timestamp": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "handset": "Nokia 6230",
    }
    return shlex.join(
        ["curl", "-i", url, "-H", "Content-Type: application/json", "-d", json.dumps(postback)]
    )


def _sourced(path: Path) -> str:
    """A path for the shell's `.`, which looks in PATH when the path has no slash."""
    text = str(path)
    return shlex.quote(text if "/" in text else f"./{text}")


def _usual_servers(settings: Settings) -> bool:
    usual = Settings()
    return (settings.amqp_url, settings.redis_url) == (usual.amqp_url, usual.redis_url)


if __name__ == "__main__":
    main()
