"""`mms-admin plan`: prints a plan for the load that the options describe."""

import click

from shared.errors import SettingsError
from shared.process.duration import Duration
from shared.settings.load import load_settings
from workers.admin import console
from workers.admin.plan.capacity import MEASURED, Load
from workers.admin.plan.report import plan


@click.command("plan")
@click.option("--rate", type=click.FloatRange(1), required=True, help="Postbacks/s at the peak.")
@click.option(
    "--mean",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="The mean rate over days as a share of the peak.",
)
@click.option(
    "--body", type=click.FloatRange(1), default=450, show_default=True, help="Bytes of a body."
)
@click.option(
    "--retention",
    type=Duration(),
    help="Retention of archive and event log. [default: MMS_ARCHIVE_MAX_AGE]",
)
@click.option("--ttl", type=Duration(), help="Lifetime of a record. [default: MMS_STATE_TTL]")
@click.option(
    "--busy",
    type=click.FloatRange(0.1, 1),
    default=0.6,
    show_default=True,
    help="Share of a core that may be in use at the peak.",
)
@click.option(
    "--node-cores",
    type=click.IntRange(1),
    default=8,
    show_default=True,
    help="Cores of a RabbitMQ node.",
)
@click.option(
    "--shard-gib",
    type=click.FloatRange(1),
    default=32,
    show_default=True,
    help="Memory of a Redis shard in GiB.",
)
@click.option(
    "--core-price",
    type=click.FloatRange(0),
    default=20,
    show_default=True,
    help="Euros a month for a core.",
)
@click.option(
    "--gib-price",
    type=click.FloatRange(0),
    default=4,
    show_default=True,
    help="Euros a month for a GiB of memory.",
)
@console.json_option
def show_plan(
    *,
    rate: float,
    mean: float,
    body: float,
    retention: float | None,
    ttl: float | None,
    busy: float,
    node_cores: int,
    shard_gib: float,
    core_price: float,
    gib_price: float,
    as_json: bool,
) -> None:
    """Compute how many processes, nodes and shards a rate needs, and which limit it reaches first.

    The input is the cost of a postback that `make bench` measures.
    deploy/docs/scaling-and-capacity.md explains the arithmetic and says which parts were not
    measured. The command uses no server.

    \b
    Examples:
      mms-admin plan --rate 1000
      mms-admin plan --rate 50000 --mean 0.4 --ttl 1d --retention 3d
    """  # noqa: D301 (click reads the backslash)
    try:
        loaded = load_settings()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    load = Load(
        rate=rate,
        mean=mean,
        body=body,
        retention=loaded.archive_max_age if retention is None else retention,
        ttl=loaded.state_ttl if ttl is None else ttl,
        busy=busy,
        node_cores=node_cores,
        shard_bytes=shard_gib * 2**30,
        core_price=core_price,
        gib_price=gib_price,
    )
    needs = plan(load, MEASURED, loaded)
    if as_json:
        for need in needs:
            console.print_json(need)
        return
    title = f"{rate:,.0f} postbacks/s of {body:,.0f} bytes at the peak"
    rows = [(need.what, need.amount, need.because) for need in needs]
    console.print_table(title, ["what", "how much", "because"], rows)
