"""One trace leads from a POST to its event; nothing of the message is in it."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import msgspec
import pytest
from aio_pika.abc import AbstractIncomingMessage
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deploy.local.ports import HOST
from shared.errors import SettingsError
from shared.postback import envelope
from shared.postback.envelope import Arrival, TracedArrival
from shared.process import tracing
from shared.process.otel import OpenTelemetry
from shared.rabbitmq.topology import DEAD, EVENTS
from shared.settings.load import load_settings
from shared.settings.settings import Settings
from tests.support import running
from tests.support.processes import Processes

NUMBER = "15550100001"
DELIVERED = msgspec.json.encode(
    {"origin": "MMS_MT", "code": "N102", "tracking-id": "T-1", "to": NUMBER, "status": "Delivered"}
)
ENDPOINT = "http://127.0.0.1:9/v1/traces"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of all processes in this test."""
    exporter = InMemorySpanExporter()

    def to(_endpoint: str, service: str) -> OpenTelemetry:
        return OpenTelemetry(SimpleSpanProcessor(exporter), service)

    monkeypatch.setattr(OpenTelemetry, "to", to)
    yield exporter
    exporter.shutdown()


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (span,) = (span for span in spans.get_finished_spans() if span.name == name)
    return span


def traceparent(span: ReadableSpan) -> str:
    context = span.get_span_context()
    assert context is not None
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def is_child(child: ReadableSpan, parent: ReadableSpan) -> bool:
    context = parent.get_span_context()
    return (
        child.parent is not None and context is not None and child.parent.span_id == context.span_id
    )


async def message_after(settings: Settings, exchange: str, body: bytes) -> AbstractIncomingMessage:
    """What comes to an exchange when a postback is sent."""
    async with running.channel(settings) as channel:
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(exchange, "#")
        await running.post(settings, body)
        message = await running.until(lambda: queue.get(no_ack=True, fail=False))
        assert message is not None
        return message


async def test_one_trace_leads_from_the_post_to_the_event(
    settings: Settings, spans: InMemorySpanExporter
) -> None:
    traced = msgspec.structs.replace(settings, otel_endpoint=ENDPOINT)
    async with running.ingest(traced), running.worker(running.beside(traced)):
        event = await message_after(settings, EVENTS, DELIVERED)
    posted, processed = named(spans, "POST /postbacks/default"), named(spans, "process postback")
    assert posted.parent is None
    assert is_child(processed, posted)
    assert event.headers["traceparent"] == traceparent(processed)
    assert traceparent(processed).split("-")[1] == traceparent(posted).split("-")[1]
    assert processed.attributes == {
        "mms.source": "default",
        "mms.code": "N102",
        "messaging.message.id": event.correlation_id,
    }
    assert [span.resource.attributes["service.name"] for span in (posted, processed)] == [
        "mms-ingest",
        "mms-worker",
    ]
    for span in spans.get_finished_spans():
        assert NUMBER not in span.to_json()
        assert "T-1" not in span.to_json()


async def test_a_dead_letter_is_in_the_trace_of_its_post(
    settings: Settings, spans: InMemorySpanExporter
) -> None:
    traced = msgspec.structs.replace(settings, otel_endpoint=ENDPOINT)
    async with running.ingest(traced), running.worker(running.beside(traced)):
        dead_letter = await message_after(settings, DEAD, b"no postback")
    posted, processed = named(spans, "POST /postbacks/default"), named(spans, "process postback")
    assert dead_letter.headers["traceparent"] == traceparent(posted)
    assert is_child(processed, posted)
    assert processed.attributes == {"mms.source": "default", "mms.dead_letter": "malformed"}


async def test_who_does_not_trace_reads_what_is_traced_and_the_other_way_round(
    settings: Settings, spans: InMemorySpanExporter
) -> None:
    traced = msgspec.structs.replace(settings, otel_endpoint=ENDPOINT)
    async with running.ingest(traced), running.worker(running.beside(settings)):
        event = await message_after(settings, EVENTS, DELIVERED)
    assert "traceparent" not in event.headers
    assert len(spans.get_finished_spans()) == 1
    spans.clear()
    second = DELIVERED.replace(b"T-1", b"T-2")
    async with running.ingest(settings), running.worker(running.beside(traced)):
        event = await message_after(settings, EVENTS, second)
    assert "traceparent" not in event.headers
    assert spans.get_finished_spans() == ()


def test_we_load_nothing_of_opentelemetry_when_it_is_off() -> None:
    # redis-py loads what it finds of the SDK by itself; the exporter and `otel` are ours alone.
    ours = "{'shared.process.otel', 'opentelemetry.exporter', 'requests'}"
    program = f"import sys, ingest.main, workers.main; print(bool({ours} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_without_the_packages_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "shared.process.otel", None)
    with pytest.raises(SettingsError, match=r"install mms-postbacks\[otel\]"):
        tracing.start(load_settings({"MMS_OTEL_ENDPOINT": ENDPOINT}), "mms-ingest")


def test_a_batch_is_read_alike_with_and_without_traces() -> None:
    plain = Arrival(1, "acme", "", b"{}")
    traced = TracedArrival(2, "acme", "", b"[]", "00-1-1-01")
    message = envelope.encode([plain, traced])
    assert envelope.decode(message) == [plain, Arrival(2, "acme", "", b"[]")]
    assert [envelope.traceparent(each) for each in envelope.decode_traced(message)] == [
        "",
        "00-1-1-01",
    ]
    for read in (envelope.decode, envelope.decode_traced):
        for bad in (b"", b"\xc1", b"\x91\x94\x01\xa4acme\xa1\xff\xc4\x00"):
            with pytest.raises(msgspec.DecodeError):
                read(bad)


class Collector(BaseHTTPRequestHandler):
    """Takes what an exporter sends."""

    bodies: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    """The endpoint of a collector."""
    server = ThreadingHTTPServer((HOST, 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://{HOST}:{server.server_port}/v1/traces"
    server.shutdown()
    server.server_close()
    thread.join()
    Collector.bodies.clear()


async def test_what_is_left_is_sent_when_a_process_stops(
    settings: Settings, processes: Processes, collector: str
) -> None:
    traced = msgspec.structs.replace(settings, otel_endpoint=collector)
    ingress = processes.start_ingest(traced)
    await running.post(settings, DELIVERED)
    await asyncio.to_thread(ingress.stop)
    sent = b"".join(Collector.bodies)
    assert b"POST /postbacks/default" in sent
    assert NUMBER.encode() not in sent


async def test_a_collector_that_is_away_holds_up_neither_an_answer_nor_the_end(
    settings: Settings, processes: Processes
) -> None:
    traced = msgspec.structs.replace(settings, otel_endpoint=ENDPOINT)
    ingress = processes.start_ingest(traced)
    await running.post(settings, *[DELIVERED] * 20)
    began = time.monotonic()
    await asyncio.to_thread(ingress.stop)
    assert time.monotonic() - began < 10
    assert "stopped" in ingress.log()
