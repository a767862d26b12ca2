"""The Node peers (`peers/node`). Without Node or their packages they are left out of the run."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final

from deploy.local.ports import free_port
from tests.bench.site import Peer, Site, say

DIRECTORY: Final = Path(__file__).parent / "peers" / "node"
MODULES: Final = DIRECTORY / "node_modules"
PACKAGES: Final = ("fastify", "amqplib", "ioredis")
OLDEST: Final = 20
"""The oldest major version of Node that the packages support."""


@cache
def missing() -> str | None:
    """Why the Node peers cannot run, None if they can. The first call prints the reason."""
    version = _version()
    reason = None
    if not version:
        reason = "Node is not installed"
    elif int(version.split(".")[0]) < OLDEST:
        reason = f"Node {version} is older than {OLDEST}"
    elif not (MODULES / ".package-lock.json").exists():
        reason = "their packages are not installed (deploy/local/bootstrap.sh bench)"
    if reason:
        say(f"the Node peers are left out: {reason}")
    return reason


def versions() -> str:
    """The versions of Node and of the peers' packages, or why they are left out."""
    if reason := missing():
        return f"its peers are left out: {reason}"
    found = [
        f"{name} {json.loads((MODULES / name / 'package.json').read_text())['version']}"
        for name in PACKAGES
    ]
    return ", ".join([_version(), *found])


def _version() -> str:
    node = shutil.which("node")
    if node is None:
        return ""
    done = subprocess.run((node, "--version"), check=True, capture_output=True, text=True)
    return done.stdout.strip().removeprefix("v")


def ingress(site: Site) -> Peer:
    """Fastify and amqplib in one process; not started."""
    port = free_port()
    return _peer(site, "ingress", port=port)


def worker(site: Site) -> Peer:
    """amqplib and ioredis in one process; not started."""
    return _peer(site, "worker")


def _peer(site: Site, name: str, *, port: int = 0) -> Peer:
    arguments = ("--port", str(port)) if port else ()
    return Peer(
        f"node-{name}",
        (shutil.which("node") or "node", str(DIRECTORY / f"{name}.mjs"), *arguments),
        log_path=site.log_path(f"node-{name}"),
        env=os.environ | site.environment | {"NODE_ENV": "production"},
        port=port,
        mark="" if port else "ready\n",
    )
