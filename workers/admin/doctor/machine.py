"""This machine: where the spool is, whether it can be written, whether there is room."""

import contextlib
import getpass
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from shared.cli import counted
from shared.settings import Settings
from workers.admin.doctor.finding import Finding, judged, ok, warning, wrong

_UNSAFE: Final = {
    "tmpfs": "is memory: what was answered 200 goes with the machine",
    "ramfs": "is memory: what was answered 200 goes with the machine",
    "overlay": "may be a container's own layer: what was answered 200 goes with the container",
    "nfs": "is a network file system, where SQLite's locks and write-ahead log are not safe",
    "nfs4": "is a network file system, where SQLite's locks and write-ahead log are not safe",
    "cifs": "is a network file system, where SQLite's locks and write-ahead log are not safe",
}


async def check_machine(settings: Settings) -> AsyncIterator[Finding]:
    """The spool's folder: writable, on a real disk, with room; and what waits in it."""
    for finding in _spool(settings):
        yield finding


def _spool(settings: Settings) -> Iterator[Finding]:
    if not settings.spool_path:
        yield warning(
            "spool",
            "off (MMS_SPOOL_PATH is empty)",
            "While RabbitMQ is away postbacks are answered 503, and the provider gives up after"
            " 25 minutes. Set MMS_SPOOL_PATH to a file on a local disk.",
        )
        return
    path = Path(settings.spool_path).absolute()
    folder = next(parent for parent in path.parents if parent.is_dir())
    yield _writable(path, folder)
    yield _kind(folder)
    yield _room(path, folder, int(settings.spool_max_bytes))
    if path.exists():
        yield _waiting(path)


def _writable(path: Path, folder: Path) -> Finding:
    who = getpass.getuser()
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"doctor")
            probe.flush()
            os.fsync(probe.fileno())
        refused = "" if os.access(path, os.W_OK) or not path.exists() else f"{path} is read-only"
    except OSError as error:
        refused = f"{folder}: {error.strerror}"
    return judged(
        "spool permissions",
        refused or f"{folder} can be written by {who}",
        good=not refused,
        advice=f"Let {who} (run doctor as the user that runs mms-ingest) write to the folder, the"
        " file and its -wal, -shm and -drain, or set MMS_SPOOL_PATH to where it may.",
    )


def _kind(folder: Path) -> Finding:
    kind = _file_system(folder)
    advice = "Set MMS_SPOOL_PATH to a file on a local disk, or on a volume that is one."
    if kind in _UNSAFE:
        finding = warning if kind == "overlay" else wrong
        return finding("spool file system", f"{folder} is on {kind}, which {_UNSAFE[kind]}", advice)
    return ok("spool file system", f"{folder} is on {kind or 'an unknown file system'}")


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on; empty where there is no `/proc`."""
    best, kind = "", ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
            before, _, after = line.partition(" - ")
            mount = before.split()[4]
            if folder.is_relative_to(mount) and len(mount) >= len(best):
                best, kind = mount, after.split()[0]
    return kind


def _room(path: Path, folder: Path, limit: int) -> Finding:
    free = shutil.disk_usage(folder).free
    wanted = limit - (path.stat().st_size if path.exists() else 0)
    return judged(
        "spool disk space",
        f"{_mib(free)} free in {folder}; the spool may grow by {_mib(max(0, wanted))}",
        good=free >= wanted,
        advice="Make room, or lower MMS_SPOOL_MAX_BYTES: a full disk answers 503 earlier than"
        " you planned, and takes what else is on it along.",
    )


def _waiting(path: Path) -> Finding:
    try:
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
        with contextlib.closing(database):
            query = "SELECT coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
            postbacks, oldest = database.execute(query).fetchone()
    except sqlite3.Error as error:
        return wrong(
            "spool contents",
            f"{path} cannot be read: {error}",
            "If it is damaged, move it away with its -wal and -shm (it may be all that holds some"
            " postbacks) and restart the ingress.",
        )
    if not postbacks:
        return ok("spool contents", "empty")
    return warning(
        "spool contents",
        f"{counted(postbacks, 'postback')}, the oldest for {time.time() - oldest:.0f} s",
        "They go to RabbitMQ when it takes them and an ingress with this MMS_SPOOL_PATH runs.",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
