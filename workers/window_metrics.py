"""What a window came to, counted once it is acknowledged.

A batch can be merged and told more than once, but is done with once. So what is counted here adds
up, over all workers: postbacks absorbed are those that were new, duplicates, dead letters or passed
on, and what the ingress has published and nobody has absorbed is in the queue. A worker that dies
with a window in hand has not counted it; who gets it next does, and finds what was new then a
duplicate.
"""

from typing import Final

from workers import metrics
from workers.outbox import Outbox
from workers.unknown_statuses import UnknownStatuses

_unknown_statuses: Final = UnknownStatuses()


def count(done: Outbox) -> None:
    """Count a window that is done with."""
    metrics.PROCESSED.inc(done.postbacks)
    for code_and_result, postbacks in done.results.items():
        metrics.POSTBACKS[code_and_result].inc(postbacks)
    metrics.PASSTHROUGH.inc(len(done.passthrough))
    for dead_letter in done.dead_letters:
        metrics.DEAD_LETTERS[dead_letter.reason,].inc()
    for code, status in done.unknown_statuses:
        _unknown_statuses.count(code, status)
