"""nginx, which answers 200 itself: the limit of the machine and of the load generator."""

import os
import shutil
from pathlib import Path

from tests.bench.site import Peer, Site

_CONFIGURATION = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr warn;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path {directory};
  proxy_temp_path {directory};
  fastcgi_temp_path {directory};
  uwsgi_temp_path {directory};
  scgi_temp_path {directory};
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200; }}
  }}
}}
"""


def nginx(site: Site, port: int) -> Peer:
    """One nginx with one worker process, not started. It discards bodies."""
    directory = (site.directory / "nginx").absolute()
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "nginx.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port))
    found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return Peer(
        "nginx",
        (found or "nginx", "-e", "stderr", "-p", str(directory), "-c", str(configuration)),
        log_path=Path(site.directory / "log" / "nginx.log"),
        env=os.environ,
        port=port,
    )
