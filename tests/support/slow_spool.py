"""An ingress whose spool is on a slow disk: the real process, and each write takes longer.

python -m tests.support.slow_spool <seconds>
"""

import sys
import time

import ingest.main
from ingest.spool.spool import Spool


def main() -> None:
    """Slow the spool down and run the ingress."""
    seconds = float(sys.argv[1])
    sys.argv = ["mms-ingest"]
    insert = Spool._insert  # noqa: SLF001 - there is no other place where a disk is slow

    def slow(spool: Spool, batch: bytes, postbacks: int) -> None:
        time.sleep(seconds)
        insert(spool, batch, postbacks)

    Spool._insert = slow  # type: ignore[method-assign,assignment]  # noqa: SLF001 - see above
    ingest.main.main()


if __name__ == "__main__":
    main()
