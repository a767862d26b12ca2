"""The entry point of `mms-worker`; see `main` for what it does."""

from shared.process.startup import interruptible


def main() -> None:
    """Run the worker."""
    with interruptible():
        from workers.main import main as command  # noqa: PLC0415 - takes a second
    command()
