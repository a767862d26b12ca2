"""The entry point of `mms-admin`; see `commands`."""

from shared.process.startup import buffer_output, interruptible


def main() -> None:
    """Run the command that the command line names."""
    buffer_output()
    with interruptible():
        from workers.admin.commands import main as command  # noqa: PLC0415 - takes a second
    command()
