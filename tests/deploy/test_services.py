"""The files for machines without containers: systemd, HAProxy, nginx and Prometheus."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local import site
from deploy.local.services import command
from ingest.http.server import RESPONSE_LIMIT
from ingest.simulate.options import Options
from shared.settings.settings import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROVIDER_WAITS = 10
"""Seconds for a response."""

EXPOSURE = "20"
"""The highest exposure, in tenths, that `systemd-analyze security` may report."""


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        words,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


@pytest.fixture(params=["mms-ingest", "mms-worker"])
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A unit that runs the command of this folder instead of the one in /opt."""
    name = str(request.param)
    text = (DEPLOY / "systemd" / f"{name}@.service").read_text()
    installed = f"/opt/mms-postbacks/.venv/bin/{name}"
    assert installed in text
    path = tmp_path / f"{name}@1.service"
    path.write_text(text.replace(installed, command(name)))
    return path


def test_systemd_accepts_it(unit: Path) -> None:
    assert unit.name not in run("systemd-analyze", "verify", "--man=no", str(unit))


def test_systemd_finds_it_hardened(unit: Path) -> None:
    run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(unit))


def test_haproxy_accepts_it() -> None:
    config = str(DEPLOY / "haproxy" / "haproxy.cfg")
    assert "Warnings" not in run("haproxy", "-c", "-f", config)
    # With names that cannot be resolved yet, because containers start in any order.
    run("haproxy", "-c", "-f", config, MMS_INGRESS_1="ingress-1:8080", MMS_PROXY_BIND="*:8000")


def test_nginx_accepts_it(tmp_path: Path) -> None:
    """Included as in Debian's nginx.conf; all other paths are in a temporary folder."""
    config = DEPLOY / "nginx" / "mms-postbacks.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in kinds)
    whole = f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{places}include {config};\n}}\n"
    (tmp_path / "nginx.conf").write_text(whole)
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found
    output = run(found, "-t", "-e", "stderr", "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf")
    assert "warn" not in output
    text = config.read_text()
    assert f"client_max_body_size {int(Settings().max_body) // 1024}k;" in text
    answer = re.search(r"proxy_read_timeout (\d+)s;", text)
    assert answer
    assert int(answer[1]) > RESPONSE_LIMIT
    assert int(answer[1]) + RESPONSE_LIMIT < PROVIDER_WAITS
    assert Options().timeout == PROVIDER_WAITS
    for port, _ in site.INGRESSES.values():
        assert f"server 127.0.0.1:{port} " in text
    assert f"listen 127.0.0.1:{site.PROXY};" in text


@pytest.mark.parametrize("name", ["prometheus.yml", "containers.yml"])
def test_prometheus_accepts_it(name: str) -> None:
    run("promtool", "check", "config", str(DEPLOY / "prometheus" / name))


def test_all_files_use_the_same_ports() -> None:
    """Units, proxy, Prometheus and `make site`."""
    units = "".join((DEPLOY / "systemd" / f"mms-{n}@.service").read_text() for n in UNITS)
    proxy = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    targets = (DEPLOY / "prometheus" / "targets").glob("*.yml")
    prometheus = "".join(path.read_text() for path in targets)
    patterns = dict(re.findall(r"(MMS_(?:INGEST|ADMIN)_PORT)=(\d+)%i", units))
    assert patterns["MMS_INGEST_PORT"] == "808"
    assert "MMS_ADMIN_PORT=910%i" in units
    assert "MMS_ADMIN_PORT=920%i" in units
    for name, (port, admin_port) in site.INGRESSES.items():
        assert (str(port), str(admin_port)) == (f"808{name}", f"910{name}")
        assert f"MMS_INGRESS_{name} 127.0.0.1:{port}\n" in proxy
        assert f"MMS_INGRESS_{name}_ADMIN_PORT {admin_port}\n" in proxy
        assert f"127.0.0.1:{admin_port}" in prometheus
    for name, admin_port in site.WORKERS.items():
        assert str(admin_port) == f"920{name}"
        assert f"127.0.0.1:{admin_port}" in prometheus
    assert f"127.0.0.1:{site.PROXY}\n" in proxy
    assert f"127.0.0.1:{site.PROXY_ADMIN}" in prometheus


UNITS = ("ingest", "worker")
