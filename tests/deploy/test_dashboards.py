"""The page that draws the dashboards: node runs its code; its server runs without a Prometheus.

With a real one, and in a browser: tests/integration/test_seeing.py.
"""

import http.client
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import dashboards
from deploy.local.child import running
from deploy.local.dashboards import Dashboards
from deploy.local.ports import HOST, free_port

HERE = Path(__file__).parent


@pytest.mark.skipif(not shutil.which("node"), reason="node, which runs the page's code, is missing")
def test_the_code_of_the_page_reads_the_dashboards() -> None:
    done = subprocess.run(
        ["node", "--test", str(HERE / "dashboards.test.mjs")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboards]:
    """The server of the page; its Prometheus is down."""
    log = tmp_path_factory.mktemp("page") / "dashboards.log"
    server = Dashboards(f"http://{HOST}:{free_port()}", log_path=log)
    with running(server):
        yield server


def ask(page: Dashboards, path: str, method: str = "GET") -> tuple[int, str, str | None]:
    """Status, body and policy of a response; the path is sent unchanged."""
    connection = http.client.HTTPConnection(HOST, page.port, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode(), response.getheader(POLICY)
    finally:
        connection.close()


POLICY = "Content-Security-Policy"


def test_it_serves_the_page_and_the_dashboards_unchanged(page: Dashboards) -> None:
    for path in dashboards.PAGE.glob("*.[mhc]*"):
        status, body, policy = ask(page, f"/{path.name}")
        assert (status, body) == (200, path.read_text())
        assert policy == dashboards.HEADERS[POLICY]
    assert ask(page, "/")[1] == (dashboards.PAGE / "index.html").read_text()
    names = json.loads(ask(page, "/dashboards")[1])
    assert names == ["pipeline", "carriers"]
    for name in names:
        path = dashboards.DASHBOARDS / f"{name}.json"
        assert ask(page, f"/dashboards/{name}")[1] == path.read_text()


def test_it_reports_a_prometheus_that_is_down(page: Dashboards) -> None:
    status, body, _ = ask(page, "/api/v1/query?query=up")
    assert status == 502
    assert "No response from Prometheus" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "path",
    [
        "/dashboards/nothing",
        "/dashboards/..%2Fprometheus%2Frules",
        "/../compose.yaml",
        "/..%2fcompose.yaml",
        "/api/v1/status/config",
        "/api/v1/label/..%2Fstatus%2Fconfig/values",
        "/api/v1/admin/tsdb/snapshot",
    ],
)
def test_it_serves_nothing_else(page: Dashboards, path: str) -> None:
    assert ask(page, path)[0] in {403, 404}


def test_it_accepts_only_get(page: Dashboards) -> None:
    assert ask(page, "/api/v1/query?query=up", "POST")[0] == 405
