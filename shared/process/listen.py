"""Listening on ports and Unix sockets; an address that cannot be used is a `SettingsError`."""

import errno
import os
import socket
from pathlib import Path
from typing import Final

from aiohttp import web

from shared.errors import SettingsError
from shared.settings.settings import Settings

BACKLOG: Final = 1024
"""Connections that the kernel holds until the process accepts them."""


async def on_port(
    runner: web.BaseRunner,
    host: str,
    port: int,
    variable: str,
    *,
    shared: bool = False,
) -> None:
    """Listen on a TCP port.

    Args:
        variable: the setting that holds the port, for the error.
        shared: share the port with other processes; the kernel spreads connections over them.

    Raises:
        SettingsError: the address cannot be used.
    """
    await runner.setup()
    every = None if host == "::" else host  # asyncio's :: is IPv6 alone, its None both families
    try:
        site = web.TCPSite(runner, every, port, backlog=BACKLOG, reuse_port=shared or None)
        await site.start()
    except OSError as error:
        raise _unusable(host, port, variable, error) from error


async def on_admin_port(
    runner: web.BaseRunner, settings: Settings, default_port: int, child: Path | None
) -> None:
    """Listen on the admin port, or, in a child process, on the Unix socket that its parent asks.

    Args:
        default_port: the port when `admin_port` is 0.
        child: path of the socket in a child process, see `multiprocess`; else None.

    Raises:
        SettingsError: the address cannot be used.
    """
    if child is None:
        port = settings.admin_port or default_port
        await on_port(runner, settings.admin_host, port, "MMS_ADMIN_PORT")
    else:
        await runner.setup()
        await web.UnixSite(runner, child).start()


def check_free(host: str, port: int, variable: str) -> None:
    """Check that no other program listens on a port; call it before processes share the port.

    A port that is shared by our processes can be shared by any other process of the same user.

    Raises:
        SettingsError: a program listens there, or the address does not belong to this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _unusable(host, port, variable, error) from error


def _unusable(host: str, port: int, variable: str, error: OSError) -> SettingsError:
    # asyncio of Python 3.13 reports an address of another machine without an error number.
    if isinstance(error, socket.gaierror) or error.errno in {errno.EADDRNOTAVAIL, None}:
        variable = variable.replace("_PORT", "_HOST")  # the address is wrong, not the port
    reason = error.strerror or os.strerror(errno.EADDRNOTAVAIL)
    return SettingsError(f"{host}:{port} cannot be listened on ({reason}); change {variable}")
