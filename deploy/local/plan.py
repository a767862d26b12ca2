"""Which servers to start: those that no setting names."""

from collections.abc import Mapping
from pathlib import Path

from deploy.local.ports import HOST, Ports
from deploy.local.servers import RabbitMQ, Redis
from shared.settings.settings import Settings


def is_given(name: str, given: Settings, environ: Mapping[str, str]) -> bool:
    """Whether somebody has said what this setting is to be."""
    return f"MMS_{name.upper()}" in environ or getattr(given, name) != getattr(Settings(), name)


def private_servers(
    var: Path,
    ports: Ports,
    given: Settings,
    environ: Mapping[str, str],
    metrics_port: int | None = None,
) -> dict[str, RabbitMQ | Redis]:
    """The servers to start, by the setting that will name them; their data goes under `var`.

    Args:
        metrics_port: where RabbitMQ shows its own metrics to Prometheus; None: nowhere.
    """
    servers: dict[str, RabbitMQ | Redis] = {}
    if not is_given("amqp_url", given, environ):
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
    if not is_given("redis_url", given, environ):
        servers["redis_url"] = Redis(var / "redis", port=ports.take("redis", 6379))
    return servers


def environment(chosen: Mapping[str, object]) -> dict[str, str]:
    """Settings as `MMS_*` variables."""
    return {f"MMS_{name.upper()}": str(value) for name, value in chosen.items()}
