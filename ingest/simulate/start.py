"""The entry point of `mms-simulate`; see `main`."""

from shared.process.startup import buffer_output, interruptible


def main() -> None:
    """Run the simulated provider."""
    buffer_output()
    with interruptible():
        from ingest.simulate.main import main as command  # noqa: PLC0415 - takes a second
    command()
