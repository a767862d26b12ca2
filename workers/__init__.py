"""From a batch of postbacks to state and events.

A batch takes this way; each step is one file, in this order:

1. `worker` opens a session when Redis answers, and processes one window after another.
2. `consumer` collects batches into a window.
3. `pipeline` passes the window through the next three steps.
4. `decode` decodes and normalises each postback.
5. `merge` merges the postbacks into their records: `store` calls `merge.lua`, and `verdicts` finds
   the events that are due.
6. `outbox` holds the events and the dead letters of the window.
7. `publish` publishes the outbox. Then `consumer` acknowledges the window.

`dead_letters` makes the dead letters of steps 4 and 5. `probes` shows whether Redis and RabbitMQ
work. `main` puts it together.
"""
