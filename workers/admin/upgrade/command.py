"""`mms-admin topology upgrade`: the command; `steps` says what it does."""

import click

from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.upgrade.steps import upgrade


@click.command("upgrade")
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
def upgrade_topology(*, dry_run: bool) -> None:
    """Give mms.dead the arguments of this release.

    The queue is created again and every dead letter is kept. Run this once after an update that
    changes the arguments of mms.dead, or after a change of MMS_QUEUE_MAX_BYTES: RabbitMQ cannot
    change the arguments of a queue. New dead letters may arrive meanwhile. The command can be
    interrupted at any moment and run again. A dead letter that arrives or is moved at that moment
    may be in mms.dead twice afterwards, which is harmless. Processes of the earlier release
    continue to work but cannot connect again: update them soon.

    \b
    Examples:
      mms-admin topology upgrade --dry-run
      mms-admin topology upgrade
    """  # noqa: D301 (click reads the backslash)
    if not console.run(upgrade(load_settings(), console.say, dry_run=dry_run)):
        console.say("The topology is that of this release: nothing to do")
