"""Tracing with OpenTelemetry: off unless `MMS_OTEL_ENDPOINT` is set, which loads `process.otel`.

One trace leads from a POST to its event: the ingress's span travels with the postback in the batch
(`envelope.TracedArrival`, through the spool too), the worker's is its child and travels in the
event's `traceparent` header. All times are the processes' own clocks.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from shared.errors import SettingsError
from shared.postback.envelope import Arrival, TracedArrival
from shared.settings.settings import Settings


class Tracing(Protocol):
    """What the processes tell of."""

    def posted(self, arrival: Arrival) -> AbstractContextManager[TracedArrival]:
        """The span of one POST, from its body to its durable answer; what to submit instead."""

    def processed(self, traceparent: str, started: int, told: Mapping[str, str]) -> str:
        """The span of one postback in a worker, from `started` (ns, Unix) until now.

        Args:
            traceparent: what it came with; if that is empty nothing is told.
            told: attributes; nothing of the postback but its code.

        Returns:
            The `traceparent` for what comes of it.
        """

    def close(self) -> None:
        """Send what is left; may take seconds."""


def start(settings: Settings, service: str) -> Tracing | None:
    """Tracing as the settings want it; None when they do not.

    Raises:
        SettingsError: it is wanted and not installed.
    """
    if not settings.otel_endpoint:
        return None
    try:
        from shared.process.otel import OpenTelemetry  # noqa: PLC0415 (optional, and slow to load)
    except ImportError as error:
        message = "MMS_OTEL_ENDPOINT is set; install mms-postbacks[otel] for it"
        raise SettingsError(f"{message} ({error})") from error
    return OpenTelemetry.to(settings.otel_endpoint, service)
