"""No proxy that we ship writes a source's token anywhere, whatever happens to a request."""

import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deploy.local.child import Child, running
from deploy.local.ports import HOST, free_port, is_free

DEPLOY = Path(__file__).parents[2] / "deploy"
TOKEN = "hush-0123456789abcdef"
REQUESTS = (
    ("POST", f"/postbacks/acme/{TOKEN}", "x"),  # no ingress answers
    ("POST", f"/postbacks/acme/{TOKEN}?{TOKEN}", "x" * 70_000),  # too large
    ("GET", f"/elsewhere/{TOKEN}", ""),
    ("POST", f"/postbacks/{TOKEN}%zz\x7f", "x"),  # no HTTP
)


class _Proxy(Child):
    """A proxy; ready when it listens."""

    def __init__(self, name: str, *command: str, port: int, log: Path, **env: str) -> None:
        super().__init__(name, command, log_path=log, env=os.environ | env)
        self.port = port

    def ready(self) -> bool:
        return not is_free(self.port)


def _haproxy(directory: Path, dead: Mapping[str, str]) -> _Proxy:
    port = free_port()
    config = str(DEPLOY / "haproxy" / "haproxy.cfg")
    bind = {"MMS_PROXY_BIND": f"{HOST}:{port}", "MMS_PROXY_ADMIN": f"{HOST}:{free_port()}"}
    log = directory / "proxy.log"
    return _Proxy("HAProxy", "haproxy", "-db", "-f", config, port=port, log=log, **bind, **dead)


def _nginx(directory: Path, dead: Mapping[str, str]) -> _Proxy:
    port = free_port()
    text = (DEPLOY / "nginx" / "mms-postbacks.conf").read_text()
    text = text.replace("listen 127.0.0.1:8000;", f"listen {HOST}:{port};")
    for number, usual in (("1", 8081), ("2", 8082)):
        text = text.replace(
            f"server 127.0.0.1:{usual} ", f"server {dead[f'MMS_INGRESS_{number}']} "
        )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {directory}/{kind};\n" for kind in kinds)
    # What Debian's nginx.conf says of logs holds where our file says nothing.
    logs = f"access_log {directory}/access.log;\nerror_log {directory}/error.log info;\n"
    (directory / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {directory}/pid;\nevents {{}}\n"
        f"http {{\n{logs}{places}{text}\n}}\n"
    )
    found = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert found
    command = (found, "-e", "stderr", "-p", str(directory), "-c", f"{directory}/nginx.conf")
    return _Proxy("nginx", *command, port=port, log=directory / "proxy.log")


@pytest.mark.parametrize("make", [_haproxy, _nginx], ids=["haproxy", "nginx"])
def test_no_token_is_written_where_no_ingress_answers(
    make: Callable[[Path, Mapping[str, str]], _Proxy], tmp_path: Path
) -> None:
    dead = {
        name: f"{HOST}:{free_port()}" if name.endswith(("1", "2")) else str(free_port())
        for number in "12"
        for name in (f"MMS_INGRESS_{number}", f"MMS_INGRESS_{number}_ADMIN_PORT")
    }
    proxy = make(tmp_path, dead)
    with running(proxy):
        statuses = [_status(proxy.port, *request) for request in REQUESTS]
    assert statuses[0] in {502, 503}
    assert all(status is None or status >= 400 for status in statuses)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path, text in written.items() if TOKEN.encode() in text]
    if make is _haproxy:  # failures still leave a line
        assert b" ingresses/" in written[proxy.log_path]


def _status(port: int, method: str, path: str, body: str) -> int | None:
    """The status of the answer; None if there is none."""
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((HOST, port), timeout=20) as connection:
        try:
            connection.sendall((head + body).encode())
            answer = connection.recv(4096)
        except ConnectionError:
            return None
    return int(answer.split()[1]) if answer else None
