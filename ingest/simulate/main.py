"""The `mms-simulate` command: sends a run, prints the ledger, and on request checks the result."""

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import NamedTuple, TextIO

import click
import msgspec

from ingest.access_control.policy import PATH
from ingest.simulate import credentials, provider, show
from ingest.simulate.ledger import Ledger
from ingest.simulate.lifecycles import RUN, Messages, generate
from ingest.simulate.options import Options
from ingest.simulate.verify import Report, verify
from ingest.simulate.wording import DIALECTS, MIXED
from shared.errors import PostbacksError
from shared.process import cli
from shared.process.duration import Duration
from shared.settings.load import load_settings, warn_of_unknown_variables
from shared.settings.settings import Settings


class _Run(NamedTuple):
    """The arguments of the command line."""

    urls: Sequence[str]
    messages: Messages
    options: Options
    check: bool
    settle: float
    as_json: bool


@click.command(epilog=cli.settings_help())
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--count", default=1000, show_default=True, type=click.IntRange(1), help="Messages.")
@click.option(
    "--rate",
    default=0.0,
    type=click.FloatRange(0),
    help="POSTs a second. [default: no limit]",
)
@click.option(
    "--format",
    "dialect",
    default="json",
    show_default=True,
    type=click.Choice([*DIALECTS, MIXED]),
    help="Dialect of the postbacks.",
)
@click.option(
    "--duplicates",
    default=0.0,
    type=click.FloatRange(0, 1),
    help="Share of postbacks sent twice although the first was received, 0 to 1. [default: none]",
)
@click.option(
    "--passthrough",
    default=0.0,
    type=click.FloatRange(0, 1),
    help="Share of postbacks followed by one of another origin, 0 to 1. [default: none]",
)
@click.option("--shuffle", is_flag=True, help="Send in random order over the whole run.")
@click.option("--seed", type=click.IntRange(0), help="The same seed gives the same mix.")
@click.option("--run", "run_name", help="Prefix of the run's ids. [default: random]")
@click.option("--source", default="default", show_default=True, help="The provider account.")
@credentials.options
@click.option(
    "--concurrency",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="POSTs in progress at once, each on its own connection.",
)
@click.option(
    "--timeout", default="10s", show_default=True, type=Duration(), help="Time limit of a POST."
)
@click.option(
    "--resend-after",
    default="5m",
    show_default=True,
    type=Duration(),
    help="Time between a failed POST and its resend, of which there are at most 5.",
)
@click.option("--deadline", type=Duration(), help="Stop sending and resending after this time.")
@click.option(
    "--verify", "check", is_flag=True, help="Afterwards compare state and events with the ledger."
)
@click.option(
    "--settle",
    default="60s",
    show_default=True,
    type=Duration(),
    help="With --verify: stop waiting when nothing has arrived for this time.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.version_option(package_name="mms-postbacks")
def main(
    *,
    urls: tuple[str, ...],
    count: int,
    rate: float,
    dialect: str,
    duplicates: float,
    passthrough: float,
    shuffle: bool,
    seed: int | None,
    run_name: str | None,
    source: str,
    token: str | None,
    token_file: TextIO | None,
    user: str | None,
    password_file: TextIO | None,
    concurrency: int,
    timeout: float,
    resend_after: float,
    deadline: float | None,
    check: bool,
    settle: float,
    as_json: bool,
) -> None:
    """Act as the provider: send realistic postbacks to URL, and resend as the provider does.

    Only a 200 within 10 s counts as received. Without URL the postbacks go to this machine's
    ingress (MMS_INGEST_PORT). Several URLs take turns. At the end the command prints a ledger of
    the postbacks and their responses. With --verify it also reads Redis and the event log, whose
    addresses are in the settings below, and reports what was lost, wrong, duplicated or
    unexpected.

    \b
    Exit status: 0 everything is right; 1 something was lost, wrong or unexpected, no
    postback was answered 200, or (without --verify) some were not; 2 the command could
    not do its work.
    Ctrl-C stops sending; the ledger and the check follow. A second Ctrl-C ends the command.

    \b
    Examples, against running processes:
      mms-simulate --count 20000 --format mixed --duplicates 0.1 --shuffle --verify
      mms-simulate --source acme --token-file acme.token --user mms --password-file acme.password
    """  # noqa: D301 (click reads the character and keeps the lines)
    if run_name is not None and not RUN.fullmatch(run_name):
        raise click.BadParameter("4 to 32 of a-z and 0-9", param_hint="--run")
    bad = [url for url in urls if not url.startswith(("http://", "https://"))]
    if bad:
        raise click.BadParameter(f"{bad[0]} is not an http:// or https:// URL", param_hint="URL")
    sent = credentials.read(token, token_file, user, password_file)
    run = _Run(
        urls=[sent.url(url.rstrip("/"), source) for url in urls or (_own_ingress(),)],
        messages=generate(count, seed=seed, run=run_name, source=source),
        options=Options(
            dialect=dialect,
            concurrency=concurrency,
            rate=rate,
            timeout=timeout,
            resend_after=resend_after,
            duplicates=duplicates,
            passthrough=passthrough,
            shuffle=shuffle,
            deadline=deadline,
            authorization=sent.authorization,
        ),
        check=check,
        settle=settle,
        as_json=as_json,
    )
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    status: list[int] = []
    cli.run(_main(run, status))
    raise SystemExit(status[0])


def _own_ingress() -> str:
    """The URL of this machine's ingress, from the settings."""
    try:
        return f"http://127.0.0.1:{load_settings().ingest_port}{PATH}"
    except PostbacksError as error:
        cli.fail(error)


async def _main(run: _Run, status: list[int]) -> None:
    loaded = load_settings()  # before anything is sent, so that an error shows at once
    warn_of_unknown_variables()
    ledger = Ledger(run.messages.postbacks)
    stop = cli.stop_event()
    options = msgspec.structs.replace(run.options, tls_ca=loaded.tls_ca)
    await _send(run._replace(options=options), ledger, stop)
    if not run.as_json:
        show.ledger(ledger, run.messages)
    report = None
    if run.check:
        stop.clear()
        report = await _verify(run, ledger, loaded, stop)
        if not run.as_json:
            show.report(report)
    if run.as_json:
        click.echo(json.dumps(show.as_json(ledger, run.messages, report), indent=2))
    failed = bool(ledger.unanswered) if report is None else not report.ok
    status.append(int(failed))


async def _send(run: _Run, ledger: Ledger, stop: asyncio.Event) -> None:
    with show.progress(run.messages.postbacks, "sending") as move:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(ledger, move))
            await provider.send(run.urls, run.messages, run.options, ledger=ledger, stop=stop)
            watching.cancel()
        move(ledger.answered, show.now(ledger))


async def _watch(ledger: Ledger, move: show.Move) -> None:
    while True:
        move(ledger.answered, show.now(ledger))
        await asyncio.sleep(show.PROGRESS_INTERVAL)


async def _verify(run: _Run, ledger: Ledger, loaded: Settings, stop: asyncio.Event) -> Report:
    """Check the result, unless a second Ctrl-C stops it."""
    with show.progress(len(run.messages), "checking") as move:
        async with asyncio.TaskGroup() as tasks:
            stopping = tasks.create_task(stop.wait())
            checking = tasks.create_task(
                verify(
                    loaded,
                    run.messages,
                    ledger,
                    settle=run.settle,
                    watch=lambda missing, of: move(of - missing, f"{missing} incomplete"),
                )
            )
            await asyncio.wait({checking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not checking.done():
                raise PostbacksError("stopped before the check was done")
            stopping.cancel()
    return checking.result()
