"""A private RabbitMQ and a private Redis on 127.0.0.1, with their data in a folder.

`make run` and the tests use both. They need Debian's packages `rabbitmq-server` and
`redis-server` (or `valkey-server`), but none of their system-wide services, users, ports or
configuration.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from deploy.local.child import Child, last_lines
from deploy.local.ports import HOST, free_port, is_free
from shared.errors import StartError

# Debian's commands of the same names in /usr/sbin change to the user rabbitmq; these do not.
RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin")

REDIS: Final = next(
    (name for name in ("redis", "valkey") if shutil.which(f"{name}-server")), "redis"
)
"""The installed server with Redis' protocol; its commands are `<name>-server` and `<name>-cli`."""

REDIS_SETTINGS: Final = (
    *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    # A record of many postbacks stays one compact block.
    *("--hash-max-listpack-entries", "256", "--hash-max-listpack-value", "1024"),
)

_CONNECT_LIMIT: Final = 1.0


class Place(NamedTuple):
    """Where a server runs.

    Attributes:
        host: its address in that place.
        enter: what to put before a command so that it runs there, such as `ip netns exec <name>`.
    """

    host: str = HOST
    enter: Sequence[str] = ()


HERE: Final = Place()


class _Server(Child):
    """A child that listens on a port."""

    port: int
    place: Place = HERE

    def prepare(self) -> None:
        # Another server on the port might respond, and this one would look ready.
        if self.place is HERE and not is_free(self.port):
            raise StartError(f"{self.name} cannot be started: port {self.port} is taken")

    def ask(self, question: bytes) -> bytes:
        """The first bytes of its response to these bytes; empty if it does not listen yet."""
        try:
            with socket.create_connection(
                (self.place.host, self.port), _CONNECT_LIMIT
            ) as connection:
                connection.sendall(question)
                return connection.recv(8)
        except OSError:
            return b""


class PortMapper(_Server):
    """Erlang's port mapper (epmd), where nodes of one cluster find each other, and their cookie.

    A node would start one itself, as a daemon that outlives the node and that all Erlang programs
    of the machine share. This one has a port of its own and ends with the nodes.
    """

    def __init__(self, directory: Path, *, port: int = 0, place: Place = HERE) -> None:
        self.port = port or free_port()
        self.place = place
        self.home = directory
        directory.mkdir(parents=True, exist_ok=True)
        command = (*place.enter, "epmd", "-address", place.host, "-port", str(self.port))
        super().__init__("epmd", command, log_path=directory / "epmd.log", env=os.environ)

    def ready(self) -> bool:
        return bool(self.ask(b"\0\1n"))  # "which names are registered?"


class RabbitMQ(_Server):
    """One private RabbitMQ node, user and password `guest`.

    Its name is part of the path of its data: use the same directory and name for the same data.

    Args:
        directory: for its data, configuration, cookie and log.
        name: of the node, without its host.
        port: for AMQP; 0: any.
        dist_port: for other nodes and `rabbitmqctl`; 0: any.
        port_mapper: one for all nodes of a cluster, which the caller stops after them; None: the
            node starts and stops its own. The node runs in the same place.
        config: more lines for `rabbitmq.conf`.
        plugins: to enable.
    """

    start_limit = 90.0
    stop_limit = 30.0

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "mms",
        port: int = 0,
        dist_port: int = 0,
        port_mapper: PortMapper | None = None,
        config: Sequence[str] = (),
        plugins: Sequence[str] = (),
    ) -> None:
        self.port = port or free_port()
        self.dist_port = dist_port or free_port()
        self.port_mapper = port_mapper or PortMapper(directory)
        self.place = self.port_mapper.place
        self.node = f"{name}@{'localhost' if self.place is HERE else self.place.host}"
        self._owns_port_mapper = port_mapper is None
        self._directory = directory
        self._config = config
        self._plugins = plugins
        super().__init__(
            "RabbitMQ",
            (*self.place.enter, str(RABBITMQ / "rabbitmq-server")),
            log_path=directory / f"{name}.log",
            env=self._environment(),
        )

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{self.place.host}:{self.port}/"

    def ready(self) -> bool:
        started = self.ask(b"AMQP\0\0\x09\1").startswith(b"\1")  # a method frame: Connection.Start
        # Other listeners, such as the one for TLS and those of plugins, start after the first one.
        return started and "Server startup complete" in self.log()

    def gave_up(self) -> bool:
        # Erlang runs on for most of a minute, to write a report about its own processes.
        return _BOOT_FAILED in self.log()

    def prepare(self) -> None:
        super().prepare()
        if self.place is HERE:
            _need_localhost()
        self._directory.mkdir(parents=True, exist_ok=True)
        self._path("enabled_plugins").write_text(f"[{','.join(self._plugins)}].\n")
        listener = f"listeners.tcp.1 = {self.place.host}:{self.port}"
        lines = (listener, "log.console.level = info", *self._config)
        self._path("rabbitmq.conf").write_text("\n".join(lines) + "\n")
        self.port_mapper.start()

    def stop(self) -> None:
        super().stop()
        if self._owns_port_mapper:
            self.port_mapper.stop()

    def tail(self) -> str:
        """The last lines of its output; if it could not boot, the lines with the reason.

        After these lines Erlang writes pages about its own processes.
        """
        return last_lines(self.log().partition(_BOOT_FAILED)[0])

    def ctl(self, *arguments: str, tool: str = "rabbitmqctl") -> str:
        """The output of `rabbitmqctl` or another tool of RabbitMQ; the node must run.

        Raises:
            subprocess.CalledProcessError: the tool failed; `stderr` says why.
        """
        ctl = (str(RABBITMQ / tool), "--quiet", "--node", self.node)
        command = (*self.place.enter, *ctl, *arguments)
        done = subprocess.run(command, env=self._env, check=True, capture_output=True, text=True)
        return done.stdout

    def _path(self, name: str) -> Path:
        return self._directory / name

    def _environment(self) -> dict[str, str]:
        """The caller's environment, with this node's variables for Erlang and RabbitMQ."""
        foreign = ("RABBITMQ_", "ERL_", "NOTIFY_SOCKET")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        interface = self.place.host.replace(".", ",")
        erlang = f"-kernel inet_dist_use_interface {{{interface}}} -start_epmd false"
        return kept | {
            "HOME": str(self.port_mapper.home.absolute()),  # the folder of the cookie
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.port_mapper.port),
            "ERL_EPMD_ADDRESS": self.place.host,
            "ERL_CRASH_DUMP": str(self._path("erl_crash.dump").absolute()),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_USE_LONGNAME": "false" if self.place is HERE else "true",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self._path("data").absolute()),
            "RABBITMQ_LOG_BASE": str(self._directory.absolute()),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._path("enabled_plugins").absolute()),
            "RABBITMQ_CONFIG_FILE": str(self._path("rabbitmq.conf").absolute()),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._path("advanced.config").absolute()),
            "RABBITMQ_CONF_ENV_FILE": str(self._path("rabbitmq-env.conf").absolute()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": erlang,
            "RABBITMQ_CTL_ERL_ARGS": erlang,
            # With this the start script becomes the Erlang VM; else it would wait for it.
            "RUNNING_UNDER_SYSTEMD": "true",
        }


_BOOT_FAILED: Final = "\nBOOT FAILED\n"


def _need_localhost() -> None:
    """Raises: StartError: this machine cannot resolve `localhost`, a part of the node's name."""
    try:
        socket.getaddrinfo("localhost", None, socket.AF_INET)
    except OSError as error:
        raise StartError(
            "RabbitMQ cannot be started: this machine cannot resolve the name localhost;"
            " add the line `127.0.0.1 localhost` to /etc/hosts"
        ) from error


class Redis(_Server):
    """One private Redis; everything that it acknowledges is on disk.

    Args:
        directory: for its data and log.
        port: 0: any.
        arguments: more of its command line, such as `("--maxmemory", "8mb")`.
        configuration: the file of a Sentinel, which rewrites it; None: an ordinary Redis.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        arguments: Sequence[str] = (),
        configuration: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self._directory = directory
        self._is_sentinel = configuration is not None
        kind = REDIS_SETTINGS if configuration is None else (str(configuration), "--sentinel")
        where = ("--port", str(self.port), "--bind", HOST, "--dir", str(directory))
        super().__init__(
            "Redis",
            (f"{REDIS}-server", *kind, *where, *arguments),
            log_path=directory / "redis.log",
            env=os.environ,
        )

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def ready(self) -> bool:
        responds = self.ask(b"PING\r\n").startswith(b"+PONG")  # false while it loads its data
        # Another server may have taken the port a moment ago, so the log must say it too.
        return responds and (self._is_sentinel or "Ready to accept connections" in self.log())

    def prepare(self) -> None:
        super().prepare()
        self._directory.mkdir(parents=True, exist_ok=True)
