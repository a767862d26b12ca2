"""The servers that the tests break, and the table of the results."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from deploy.local.child import running
from deploy.local.servers import RabbitMQ, Redis
from tests.support.site import Row, Site

_ROW = "chaos row"
_rows: list[Row] = []
"""The rows of the tests, in the main process of pytest."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--chaos-table", help="write the table of faults to this file")


@pytest.fixture(scope="session")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RabbitMQ, Redis]]:
    """A RabbitMQ and a Redis that only the chaos tests use."""
    directory = tmp_path_factory.mktemp("breakable")
    rabbit = RabbitMQ(directory / "rabbitmq", config=["disk_free_limit.absolute = 50MB"])
    state = Redis(directory / "redis", arguments=("--enable-debug-command", "local"))
    with running(rabbit, state):
        yield rabbit, state


@pytest.fixture
async def site(breakable: tuple[RabbitMQ, Redis], tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path, *breakable)
    await site.clear()
    try:
        yield site
    finally:
        await site.stop()


@pytest.fixture
def holds(record_property: Callable[[str, object], None]) -> Callable[[Row], None]:
    """Enters a row into the table, and fails the test unless the guarantees hold."""

    def enter(row: Row) -> None:
        record_property(_ROW, list(row))
        assert row.answered > 0
        assert row.lost == 0, row.findings[:20]
        assert row.unexpected == 0, row.findings[:20]
        assert row.late == 0

    return enter


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests more time: for the fault, the recovery, and the wait for all postbacks."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(300))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the rows from the reports of the tests, also from other processes."""
    if report.when == "call":
        rows = [row for name, row in report.user_properties if name == _ROW]
        _rows.extend(msgspec.convert(rows, list[Row]))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if not _rows:
        return
    table = _table()
    terminalreporter.section("results of the fault tests")
    terminalreporter.write_line(table)
    if path := config.getoption("--chaos-table", None):
        Path(path).write_text(_page(table))


def _table() -> str:
    head = (
        "| fault | answered 200 | lost | recovered | duplicated events | unexpected "
        "| longest response |\n|---|--:|--:|--:|--:|--:|--:|"
    )
    lines = (
        f"| {row.fault} | {row.answered} | {row.lost} | {row.recovered} | {row.duplicated} "
        f"| {row.unexpected} | {row.longest:.2f} s |"
        for row in sorted(_rows)
    )
    return "\n".join([head, *lines])


def _page(table: str) -> str:
    return f"""# Results of the fault tests

Written by `make chaos`: real servers, real processes and real faults, under load from
`mms-simulate`.

* *lost*: answered 200, and missing or wrong in the state or in the events. Must be 0.
* *recovered*: answered 200 during the fault, and in the state at the end.
* *duplicated events*: published again with the same id, which is allowed.
* *unexpected*: state or event without a postback. Must be 0.
* *longest response*: seconds from any request to its response. The limit is 5 s.

{table}
"""
