"""What `make run` and `make site` start: only the servers that no setting names."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from deploy.local.ports import HOST, Ports
from deploy.local.servers import RabbitMQ, Redis
from shared.settings.environment import variable
from shared.settings.settings import Settings


def is_set(name: str, settings: Settings, environ: Mapping[str, str]) -> bool:
    """Whether the user has set this setting."""
    return variable(name) in environ or getattr(settings, name) != getattr(Settings(), name)


def private_servers(
    var: Path,
    ports: Ports,
    settings: Settings,
    environ: Mapping[str, str],
    metrics_port: int | None = None,
) -> dict[str, RabbitMQ | Redis]:
    """The servers to start, by the setting that will name them; their data goes under `var`.

    Args:
        metrics_port: port for RabbitMQ's own metrics; None: none.
    """
    servers: dict[str, RabbitMQ | Redis] = {}
    if not is_set("amqp_url", settings, environ):
        port, dist_port = ports.take("amqp", 5672), ports.take("rabbitmq-distribution", 25672)
        servers["amqp_url"] = RabbitMQ(
            var / "rabbitmq",
            port=port,
            dist_port=dist_port,
            plugins=("rabbitmq_prometheus",) if metrics_port else (),
            config=(f"prometheus.tcp.ip = {HOST}", f"prometheus.tcp.port = {metrics_port}")
            if metrics_port
            else (),
        )
    if not is_set("redis_url", settings, environ):
        servers["redis_url"] = Redis(var / "redis", port=ports.take("redis", 6379))
    return servers


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as `MMS_*` variables."""
    return {variable(name): str(value) for name, value in settings.items()}


def write_env(var: Path, variables: Mapping[str, str]) -> None:
    """Write `env`, a file for `.` in a shell, so that commands reach what runs here."""
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()]
    (var / "env").write_text("".join(lines))
