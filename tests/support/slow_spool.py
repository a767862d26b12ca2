"""An ingress with its spool on a slow disk: the real process, with a pause before each write.

python -m tests.support.slow_spool <seconds>
"""

import sys
import time

import ingest.main
from ingest.spool.spool_file import SpoolFile


def main() -> None:
    """Delay the writes of the spool and run the ingress."""
    seconds = float(sys.argv[1])
    sys.argv = ["mms-ingest"]
    insert = SpoolFile.insert

    def slow(file: SpoolFile, encoded: bytes, postbacks: int) -> None:
        time.sleep(seconds)
        insert(file, encoded, postbacks)

    SpoolFile.insert = slow  # type: ignore[method-assign,assignment]
    ingest.main.main()


if __name__ == "__main__":
    main()
