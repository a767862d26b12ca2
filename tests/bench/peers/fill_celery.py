"""Publishes each line of standard input to Celery's queue, without confirms. It is not measured."""

import sys

from tests.bench.peers.celery_app import app, take

app.conf.broker_transport_options = {}
with app.producer_pool.acquire() as producer:
    for line in sys.stdin:
        take.apply_async((line.rstrip("\n"),), producer=producer)
