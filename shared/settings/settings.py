"""Every setting with its description and its default.

How a setting is given to a process: see `load`. How each type is written: see `units`. The sources'
access rules: see `sources`.
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from shared.settings.sources import Rules
from shared.settings.units import Bytes, Names, Networks, Seconds


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that all processes share. `repr` shows no value that may be a secret."""

    amqp_url: Annotated[
        str, Meta(description="RabbitMQ; separate the URLs of a cluster's nodes by commas")
    ] = "amqp://guest:guest@127.0.0.1:5672/"
    redis_url: Annotated[
        str, Meta(description="Redis, for the state; also redis+cluster:// and redis+sentinel://")
    ] = "redis://127.0.0.1:6379/0"
    ingest_host: Annotated[str, Meta(description="address the ingress listens on")] = "127.0.0.1"
    ingest_port: Annotated[int, Meta(description="port the ingress listens on")] = 8080
    admin_host: Annotated[str, Meta(description="address for health, readiness and metrics")] = (
        "127.0.0.1"
    )
    admin_port: Annotated[
        int,
        Meta(description="port for health, readiness and metrics; 0: ingress 9090, worker 9091"),
    ] = 0
    tls_cert: Annotated[
        str, Meta(description="PEM file: certificate and chain of the ingress; empty: no TLS")
    ] = ""
    tls_key: Annotated[
        str, Meta(description="PEM file: its private key; empty: in MMS_TLS_CERT too")
    ] = ""
    tls_ca: Annotated[
        str,
        Meta(
            description="PEM file: authorities that sign amqps:// and rediss:// servers; empty: the"
            " system's"
        ),
    ] = ""
    sources: Annotated[
        Names, Meta(description="provider accounts that may POST to /postbacks/{source}")
    ] = Names(("default",))
    rules: Annotated[Rules, Meta(description="access rules, by source")] = {}
    rate_per_source: Annotated[
        float,
        Meta(description="rate limit in postbacks per second, source and process; 0: no limit"),
    ] = 0.0
    open: Annotated[
        bool, Meta(description="1: any client may send, also from other machines, without a rule")
    ] = False
    trusted_proxies: Annotated[
        Networks, Meta(description="networks of proxies whose X-Forwarded-For is trusted")
    ] = Networks()
    max_body: Annotated[Bytes, Meta(description="largest request body; larger: 413")] = Bytes(65536)
    max_waiting: Annotated[
        int, Meta(description="postbacks that may wait for a durable response; more: 503")
    ] = 10_000
    linger: Annotated[
        Seconds, Meta(description="longest time a postback waits for its batch to fill; 0: none")
    ] = Seconds(0.01)
    max_connections: Annotated[
        int, Meta(description="connections to the ingress; more are closed at once")
    ] = 1000
    spool_path: Annotated[
        str, Meta(description="file for postbacks while RabbitMQ is down; empty: no spool, 503")
    ] = "var/spool.db"
    spool_max_bytes: Annotated[
        Bytes, Meta(description="largest size of the spool; when it is full: 503")
    ] = Bytes(2**30)
    state_ttl: Annotated[
        Seconds, Meta(description="how long a record is kept after its last change")
    ] = Seconds(7 * 86400)
    record_format: Annotated[
        int,
        Meta(description="format of records: 2 is small; 0.2.0 and earlier releases read only 1"),
    ] = 2
    prefetch: Annotated[int, Meta(description="batches that a worker may have unacknowledged")] = 64
    queue_max_bytes: Annotated[
        Bytes, Meta(description="size limit of mms.postbacks.state and of mms.dead, each")
    ] = Bytes(4 * 2**30)
    delivery_limit: Annotated[
        int, Meta(description="deliveries of a batch before it becomes a dead letter")
    ] = 20
    archive_max_age: Annotated[
        Seconds, Meta(description="how long the archive and the event log keep their messages")
    ] = Seconds(8 * 86400)
    archive_max_bytes: Annotated[
        Bytes, Meta(description="size limit of the archive and of the event log, each")
    ] = Bytes(20 * 2**30)
    replicas: Annotated[
        int,
        Meta(description="nodes that have a copy of each queue and stream; 0: RabbitMQ's default"),
    ] = 0
    processes: Annotated[
        Names, Meta(description="admin ports (host:port) of the site, for `mms-admin doctor`")
    ] = Names()
    log_level: Annotated[
        str, Meta(description="DEBUG, INFO, WARNING or ERROR; also by logger: INFO,workers=DEBUG")
    ] = "INFO"
    log_format: Annotated[str, Meta(description="text for people, json for machines")] = "text"
    otel_endpoint: Annotated[
        str, Meta(description="URL for traces, OTLP over HTTP; empty: no tracing")
    ] = ""

    def __repr__(self) -> str:
        values = (
            f"{name}=***" if name in SECRET else f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
        )
        return f"Settings({', '.join(values)})"


SECRET: Final = frozenset({"amqp_url", "redis_url", "rules"})
"""Settings that may hold a secret. Nothing shows their values."""
