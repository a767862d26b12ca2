"""Where `mms-simulate` starts; see `main` for what it does."""

from shared.process.startup import interruptible


def main() -> None:
    """Run the simulated provider."""
    with interruptible():
        from ingest.simulate.main import main as command  # noqa: PLC0415 - takes a second
    command()
