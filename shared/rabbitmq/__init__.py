"""RabbitMQ: sessions with time limits, publisher confirms, and the topology."""
