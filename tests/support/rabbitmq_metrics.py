"""RabbitMQ's metrics that rules and dashboards use."""

from typing import Final

RABBITMQ: Final = {
    "queue_coarse_metrics": {"rabbitmq_detailed_queue_messages"},
    "queue_consumer_count": {"rabbitmq_detailed_queue_consumers"},
}
"""The metrics in use of each family of `/metrics/detailed`; test_seeing.py asks a RabbitMQ."""
