"""The local spool: batches wait on disk while RabbitMQ is down, and are drained to it later."""
