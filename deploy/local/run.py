"""`make run`: everything on this machine, live, until Ctrl-C.

Starts a private RabbitMQ and a private Redis (or uses those that `MMS_AMQP_URL` and
`MMS_REDIS_URL` name), one ingress and one worker, says where to POST, and shows events as they
come. Restarts what ends by itself. All that is kept lies in one folder; a second run there finds
its data and its ports again.
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

from deploy.local.child import Child
from deploy.local.keep import Keeper, only_one, progress, say, stop
from deploy.local.plan import environment, is_given, private_servers
from deploy.local.ports import HOST, Ports
from deploy.local.servers import RabbitMQ, Redis
from deploy.local.services import Service, command
from deploy.local.watch import watch
from ingest.access_control.policy import PATH
from shared.errors import PostbacksError, StartError
from shared.process import cli
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings
from workers.admin.upgrade import upgrade

DEMO: Final = ("--count", "200", "--rate", "20", "--format", "mixed", "--duplicates", "0.1")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--var", type=Path, default=Path("var"), help="folder for all that is kept")
    parser.add_argument("--demo", action="store_true", help="also send simulated traffic")
    arguments = parser.parse_args()
    try:
        asyncio.run(_main(arguments.var, demo=arguments.demo))
    except (PostbacksError, BaseExceptionGroup) as error:
        if (known := cli.only_ours(error)) is None:
            raise
        say(f"\nNot running: {known}")
        raise SystemExit(1) from None


async def _main(var: Path, *, demo: bool) -> None:
    stop = cli.stop_event()
    with only_one(var, "make run"):
        warn_of_unknown_variables()
        local = _plan(var, load_settings(), os.environ)
        run = Run(local, var, demo=demo)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(run.work())
                await stop.wait()
                work.cancel()
        finally:
            await run.stop()


class Local(NamedTuple):
    """What runs here.

    Attributes:
        settings: those that the services get.
        environment: the part of them that we chose, as `MMS_*` variables.
        servers: those that we start; they are stopped last, in this order.
        services: the ingress and the worker.
    """

    settings: Settings
    environment: dict[str, str]
    servers: Sequence[RabbitMQ | Redis]
    services: Sequence[Service]


def _plan(var: Path, given: Settings, environ: Mapping[str, str]) -> Local:
    """Decide what to start and on which ports; what the settings say is left as it is."""
    ports = Ports(var / "ports.json")
    servers = private_servers(var, ports, given, environ)
    chosen: dict[str, str | int] = {name: server.url for name, server in servers.items()}
    if not is_given("ingest_port", given, environ):
        chosen["ingest_port"] = ports.take("ingest", 8080)
    if not is_given("spool_path", given, environ):
        chosen["spool_path"] = str(var / "spool.db")
    ours = environment(chosen)
    services = [
        Service(
            name,
            settings=ours,
            admin_port=ports.take(f"{name}-admin", usual),
            log_path=var / "log" / f"{name}.log",
        )
        for name, usual in (("mms-ingest", 9090), ("mms-worker", 9091))
    ]
    replaced = msgspec.structs.replace(given, **chosen)
    return Local(replaced, ours, list(servers.values()), services)


class Run:
    """From the first start to the last stop."""

    def __init__(self, local: Local, var: Path, *, demo: bool) -> None:
        self._local = local
        self._var = var
        self._demo = demo
        self._demo_child: Child | None = None
        self._keeper = Keeper((local.servers, local.services), self._upgrade)
        sources = local.settings.sources
        self._source = "default" if "default" in sources else sources[0]
        self._url = _url(local.settings)

    async def work(self) -> None:
        """Start everything, then watch it for ever.

        Raises:
            StartError: something did not start; the rest may run.
        """
        self._write_env()
        await self._keeper.start()
        async with asyncio.TaskGroup() as watching:
            watching.create_task(self._keeper.keep())
            subscribed = asyncio.Event()
            watching.create_task(watch(self._local.settings, say, subscribed))
            await subscribed.wait()
            self._greet()
            if self._demo:
                watching.create_task(self._send_demo())

    async def stop(self) -> None:
        """Stop all that was started: first what takes requests, last what keeps the data."""
        say("")
        if self._demo_child is not None:
            await stop(self._demo_child)
        await self._keeper.stop()
        progress(f"stopped; the data is in {self._var}")

    async def _upgrade(self) -> None:
        """Bring data of a release before to this one; servers that are not ours are left alone."""
        if any(isinstance(server, RabbitMQ) for server in self._local.servers):
            await upgrade(self._local.settings, progress)

    async def _send_demo(self) -> None:
        self._demo_child = Child(
            "mms-simulate",
            (command("mms-simulate"), self._url, "--source", self._source, *DEMO),
            log_path=self._var / "log" / "mms-simulate.log",
            env=os.environ | self._local.environment,
        )
        try:
            await asyncio.to_thread(self._demo_child.start)
        except StartError as error:
            say(str(error))
            return
        await self._keeper.end_of(self._demo_child)
        say(f"\nThe simulated traffic has ended:\n\n{self._demo_child.log().rstrip()}\n")

    def _write_env(self) -> None:
        processes = ",".join(f"{HOST}:{service.admin_port}" for service in self._local.services)
        known = self._local.environment | environment({"processes": processes})  # for doctor
        lines = [f"export {k}={shlex.quote(v)}\n" for k, v in known.items()]
        (self._var / "env").write_text("".join(lines))

    def _greet(self) -> None:
        now = datetime.now(UTC)
        tracking_id = f"try-{now:%Y%m%d-%H%M%S}"
        ready = " and ".join(f"{HOST}:{service.admin_port}" for service in self._local.services)
        admin = f"{os.path.relpath(command('mms-admin'))} show {tracking_id}"
        if not _usual(self._local.settings):
            admin = f". {_sourced(self._var / 'env')}; {admin}"
        url = self._url if self._source == "default" else f"{self._url}/{self._source}"
        say(
            f"\nReady. Postbacks go to {url} (health and metrics: {ready}).\n"
            f"From another terminal, send one, and look at what became of it:\n\n"
            f"  {_curl(url, tracking_id, now)}\n"
            f"  {admin}\n\n"
            f"Logs are in {self._var}. Ctrl-C stops everything. Events as they come:\n"
        )


def _url(settings: Settings) -> str:
    """Where the ingress takes postbacks of the source `default`."""
    host = HOST if settings.ingest_host in {"0.0.0.0", "::"} else settings.ingest_host  # noqa: S104
    return f"http://{host}:{settings.ingest_port}{PATH}"


def _curl(url: str, tracking_id: str, now: datetime) -> str:
    """A line to paste: the handset has the message. Its tracking-id is a new one in each run."""
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
    """A path as the shell's `.` wants it: with a slash, or it is looked for in PATH."""
    text = str(path)
    return shlex.quote(text if "/" in text else f"./{text}")


def _usual(settings: Settings) -> bool:
    usual = Settings()
    return (settings.amqp_url, settings.redis_url) == (usual.amqp_url, usual.redis_url)


if __name__ == "__main__":
    main()
