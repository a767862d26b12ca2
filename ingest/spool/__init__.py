"""The local spool: batches on disk while RabbitMQ is away, and the way back to RabbitMQ."""
