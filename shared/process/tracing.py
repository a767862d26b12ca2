"""Tracing with OpenTelemetry: off unless `MMS_OTEL_ENDPOINT` is set, which loads `process.otel`.

One trace leads from a POST to its event: the ingress's span travels with the postback in the batch
(`envelope.TracedArrival`, also through the spool). The worker's span is its child and travels in
the event's `traceparent` header. All times are those of the processes' own clocks.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from shared.errors import SettingsError
from shared.postback.envelope import Arrival, TracedArrival
from shared.settings.settings import Settings


class Tracing(Protocol):
    """Creates the spans of the processes."""

    def posted(self, arrival: Arrival) -> AbstractContextManager[TracedArrival]:
        """The span of one POST until its durable response; yields the arrival to submit."""

    def processed(self, traceparent: str, started: int, attributes: Mapping[str, str]) -> str:
        """The span of one postback in a worker, from `started` (ns, Unix) until now.

        Args:
            traceparent: of the postback; empty: no span is created.
            attributes: of the span; of the postback's own fields only the code.

        Returns:
            The `traceparent` for the postback's event.
        """

    def close(self) -> None:
        """Send the remaining spans; may take seconds."""


def start(settings: Settings, service: str) -> Tracing | None:
    """Start tracing; return None when `MMS_OTEL_ENDPOINT` is not set.

    Raises:
        SettingsError: it is set, and OpenTelemetry is not installed.
    """
    if not settings.otel_endpoint:
        return None
    try:
        from shared.process.otel import OpenTelemetry  # noqa: PLC0415 (optional, and slow to load)
    except ImportError as error:
        message = "MMS_OTEL_ENDPOINT is set; install mms-postbacks[otel] for it"
        raise SettingsError(f"{message} ({error})") from error
    return OpenTelemetry.to(settings.otel_endpoint, service)
