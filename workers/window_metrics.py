"""Count the postbacks of a window when it is acknowledged.

A window can be merged and published more than once, but is acknowledged once. So these counters add
up over all workers: acknowledged postbacks = new + duplicate + dead letters + passthrough. A
postback that an ingress has published and no worker has acknowledged is in the queue. A worker that
dies before the acknowledgement has not counted the window. The next worker counts it, and counts
postbacks that were new then as duplicates.
"""

from typing import Final

from workers import metrics
from workers.outbox import Outbox
from workers.unknown_statuses import UnknownStatuses

_unknown_statuses: Final = UnknownStatuses()


def count(outbox: Outbox) -> None:
    """Count an acknowledged window by its outbox."""
    metrics.PROCESSED.inc(outbox.postbacks)
    for code_and_result, postbacks in outbox.results.items():
        metrics.POSTBACKS[code_and_result].inc(postbacks)
    metrics.PASSTHROUGH.inc(len(outbox.passthrough))
    for dead_letter in outbox.dead_letters:
        metrics.DEAD_LETTERS[dead_letter.reason,].inc()
    for code, status in outbox.unknown_statuses:
        _unknown_statuses.count(code, status)
