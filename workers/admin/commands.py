"""The `mms-admin` command; each subcommand has a file of its own."""

import click

from shared.log import configure
from shared.process import cli
from shared.settings.load import warn_of_unknown_variables
from workers.admin.dead.export import export
from workers.admin.dead.list import list_dead_letters
from workers.admin.dead.purge import purge
from workers.admin.dead.replay import replay
from workers.admin.dead.show import show_dead_letter
from workers.admin.doctor.command import doctor
from workers.admin.events import events
from workers.admin.hash_password import hash_password
from workers.admin.plan.command import show_plan
from workers.admin.rebuild import rebuild
from workers.admin.settings import show_settings
from workers.admin.show import show
from workers.admin.upgrade.command import upgrade_topology


@click.group(epilog=cli.settings_help())
@click.version_option(package_name="mms-postbacks")
def main() -> None:
    """Look up messages, follow events, handle dead letters, rebuild the state, find faults.

    Phone numbers are masked unless --raw is set. Exit status: 0 done, 1 nothing found or not
    everything done, 2 an error.
    """
    configure("WARNING")
    warn_of_unknown_variables()


@main.group()
def dead() -> None:
    """List, show, replay, purge and export dead letters.

    A dead letter is a postback that could not be decoded, with its raw bytes and a reason, or a
    batch that no worker could process ("undeliverable").
    """


@main.group("topology")
def topology_group() -> None:
    """Upgrade exchanges, queues and streams to what this release declares."""


for command in (show, events, rebuild, doctor, show_plan, show_settings, hash_password):
    main.add_command(command)
for command in (list_dead_letters, show_dead_letter, replay, purge, export):
    dead.add_command(command)
topology_group.add_command(upgrade_topology)
