"""The entry point of `mms-ingest`; see `main` for what it does."""

from shared.process.startup import interruptible


def main() -> None:
    """Run the ingress."""
    with interruptible():
        from ingest.main import main as command  # noqa: PLC0415 - takes a second
    command()
