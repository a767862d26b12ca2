"""The entry point of `mms-admin`; see `commands`."""

from shared.process.startup import interruptible


def main() -> None:
    """Run the command that the command line names."""
    with interruptible():
        from workers.admin.commands import main as command  # noqa: PLC0415 - takes a second
    command()
