"""The machine of the figures: the facts to compare it with others, but nothing that names it."""

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

from deploy.local.servers import RabbitMQ
from tests.bench import node
from tests.bench.site import Site

OURS: Final = ("aiohttp", "aio-pika", "aiormq", "msgspec", "redis", "hiredis", "uvloop")
PEERS: Final = ("fastapi", "uvicorn", "celery", "faststream", "pydantic")


def describe(site: Site) -> dict[str, str]:
    """The properties of the machine and the versions on it, by name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": _cpu_model(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 2**30:.1f} GiB",
        "kernel": platform.release().split("-")[0],
        "Python": platform.python_version(),
        "RabbitMQ": _rabbitmq(site.rabbit),
        "Redis": str(site.redis_client.info("server")["redis_version"]),
        "nginx": _printed_version("nginx", "-v"),
        "wrk": _printed_version("wrk", "-v"),
        "libraries": ", ".join(f"{name} {version(name)}" for name in OURS),
        "peers' libraries": _peers(site),
        "Node": node.versions(),
    }


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _rabbitmq(server: RabbitMQ) -> str:
    return server.ctl("version").strip()


def _printed_version(*command: str) -> str:
    """The first version number that a command prints."""
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:/usr/sbin"}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=10, env=environment
    )
    found = re.search(r"\d+\.\d+[.\d]*", done.stdout + done.stderr)
    return found[0] if found else "?"


def _peers(site: Site) -> str:
    code = (
        "from importlib.metadata import version\n"
        f"print(', '.join(f'{{name}} {{version(name)}}' for name in {PEERS!r}))"
    )
    done = subprocess.run(
        (str(site.peers_python), "-c", code), check=True, capture_output=True, text=True, timeout=60
    )
    return done.stdout.strip()
