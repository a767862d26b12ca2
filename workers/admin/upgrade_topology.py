"""`mms-admin topology upgrade`: the command; see `upgrade` for what it does."""

import click

from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.upgrade import upgrade


@click.command("upgrade")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def upgrade_topology(*, dry_run: bool) -> None:
    """Make mms.dead anew with the arguments of this release; no dead letter is lost.

    Needed once after an update that changes the arguments of mms.dead, or after a change of
    MMS_QUEUE_MAX_BYTES: RabbitMQ cannot change them. Dead letters may keep coming meanwhile. It may
    be interrupted at any moment and run again. A dead letter that arrives or is moved at such a
    moment may be there twice afterwards, which is harmless. Processes of the release before go on
    working, but cannot connect again: update them soon.

    \b
    Examples:
      mms-admin topology upgrade --dry-run
      mms-admin topology upgrade
    """  # noqa: D301 (click reads the backslash)
    if not console.run(upgrade(load_settings(), console.say, dry_run=dry_run)):
        console.say("The topology is as this release declares it: nothing to do")
