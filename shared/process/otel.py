"""`Tracing` by OpenTelemetry's SDK; needs the optional dependencies `otel`.

Spans have the source, the code and the result, but no phone number, tracking-id or body. The SDK's
own setting `OTEL_TRACES_SAMPLER` says how many traces are kept; the worker keeps those that the
ingress kept.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.postback.envelope import Arrival, TracedArrival

HEADER: Final = "traceparent"

SEND_LIMIT: Final = 2.0
"""Seconds to try to send spans, also when the process ends; then the spans are dropped."""


class OpenTelemetry:
    """Creates spans and passes them to a processor.

    Args:
        service: the process's name.
    """

    def __init__(self, processor: SpanProcessor, service: str) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("mms-postbacks")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str, service: str) -> "OpenTelemetry":
        """Send spans to an OTLP/HTTP endpoint, in the background."""
        return cls(BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=SEND_LIMIT)), service)

    @contextlib.contextmanager
    def posted(self, arrival: Arrival) -> Iterator[TracedArrival]:
        with self._tracer.start_as_current_span(
            f"POST /postbacks/{arrival.source}",
            kind=SpanKind.SERVER,
            start_time=arrival.received_at * 1000,
            attributes={"mms.source": arrival.source, "mms.body_bytes": len(arrival.body)},
        ) as span:
            yield TracedArrival(
                arrival.received_at,
                arrival.source,
                arrival.content_type,
                arrival.body,
                self._traceparent(span),
            )

    def processed(self, traceparent: str, started: int, attributes: Mapping[str, str]) -> str:
        if not traceparent:
            return ""
        span = self._tracer.start_span(
            "process postback",
            context=self._propagator.extract({HEADER: traceparent}),
            kind=SpanKind.CONSUMER,
            start_time=started,
            attributes=dict(attributes),
        )
        span.end()
        return self._traceparent(span)

    def close(self) -> None:
        self._provider.shutdown()

    def _traceparent(self, span: Span) -> str:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return carrier.get(HEADER, "")
