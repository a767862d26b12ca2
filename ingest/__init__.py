"""From the provider's request to a durable response.

A postback takes this way; each step is one file, in this order:

1. `http/connections` accepts the connection, with limits (`http/tls_handshake`, `http/connection`).
2. `http/fast_path` reads the request. A request that must wait goes through aiohttp, the slow path.
3. `http/server` gets it from either path. `access_control/policy` decides whether it is allowed.
   On the slow path `http/body` reads the body and `http/content_coding` decompresses it.
4. `batcher` collects postbacks into a batch.
5. `commit` makes the batch durable: `publisher` while the `breaker` is closed, else `spool/spool`.
6. `http/responses` writes the response.

Later `spool/drain` publishes the batches of the spool, and `probe` closes the breaker where there
is no spool. `main` puts it together.
"""
