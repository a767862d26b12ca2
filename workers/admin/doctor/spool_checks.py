"""The spools of this machine: permissions, file system, disk space, contents, room.

A spool on another machine cannot be read. `process_checks` reads what its ingress counts.
"""

import contextlib
import getpass
import glob
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from shared.process.cli import counted
from shared.settings.settings import Settings
from workers.admin.doctor.finding import Finding, judged, ok, warning, wrong

_MEMORY: Final = "is memory: a restart of the machine loses postbacks that were answered 200"
_NETWORK: Final = "is a network file system, where SQLite's locks and write-ahead log are not safe"
_UNSAFE: Final = {
    "tmpfs": _MEMORY,
    "ramfs": _MEMORY,
    "overlay": (
        "may be a container's own layer: removing the container loses postbacks that were"
        " answered 200"
    ),
    "nfs": _NETWORK,
    "nfs4": _NETWORK,
    "cifs": _NETWORK,
}


FULL: Final = 0.95
"""Share of MMS_SPOOL_MAX_BYTES from which a spool may refuse the next batch."""


async def check_spools(settings: Settings, named: Sequence[str] = ()) -> AsyncIterator[Finding]:
    """Check the spool of the settings and the named spools.

    Args:
        named: more spools, as paths or patterns (`/var/lib/*/spool.db`).
    """
    limit = int(settings.spool_max_bytes)
    if settings.spool_path or not named:
        for finding in _configured_spool(settings):
            yield finding
    for pattern in named:
        if not (paths := _files(pattern)):
            yield wrong(
                f"spool {pattern}",
                "there is no such file on this machine",
                "Correct the path. A spool on another machine cannot be read from here: run doctor"
                " there, or name its ingress with --process, which counts its postbacks.",
            )
        for path in paths:
            for finding in _spool(path, limit, f"spool {path}"):
                yield finding


def _files(pattern: str) -> list[Path]:
    return [Path(each).absolute() for each in sorted(glob.glob(pattern))]  # noqa: PTH207


def _configured_spool(settings: Settings) -> Iterator[Finding]:
    if not settings.spool_path:
        yield warning(
            "spool",
            "off (MMS_SPOOL_PATH is empty)",
            "While RabbitMQ is unavailable, postbacks are answered 503, and the provider gives up"
            " after 25 minutes. Set MMS_SPOOL_PATH to a file on a local disk.",
        )
        return
    yield from _spool(Path(settings.spool_path).absolute(), int(settings.spool_max_bytes), "spool")


def _spool(path: Path, limit: int, name: str) -> Iterator[Finding]:
    folder = next(parent for parent in path.parents if parent.is_dir())
    yield _writable(path, folder, name)
    yield _kind(folder, name)
    yield _room(path, folder, limit, name)
    if path.exists():
        yield from _contents(path, limit, name)


def _writable(path: Path, folder: Path, name: str) -> Finding:
    user = getpass.getuser()
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"doctor")
            probe.flush()
            os.fsync(probe.fileno())
        refused = "" if os.access(path, os.W_OK) or not path.exists() else f"{path} is read-only"
    except OSError as error:
        refused = f"{folder}: {error.strerror}"
    return judged(
        f"{name} permissions",
        refused or f"{user} can write to {folder}",
        good=not refused,
        advice=f"Let {user} (run doctor as the user that runs mms-ingest) write to the folder, the"
        " file and its -wal, -shm and -drain, or set MMS_SPOOL_PATH to another folder.",
    )


def _kind(folder: Path, name: str) -> Finding:
    kind = _file_system(folder)
    advice = "Set MMS_SPOOL_PATH to a file on a local disk or on a persistent volume."
    if kind in _UNSAFE:
        finding = warning if kind == "overlay" else wrong
        return finding(
            f"{name} file system", f"{folder} is on {kind}, which {_UNSAFE[kind]}", advice
        )
    return ok(f"{name} file system", f"{folder} is on {kind or 'an unknown file system'}")


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


def _room(path: Path, folder: Path, limit: int, name: str) -> Finding:
    free = shutil.disk_usage(folder).free
    wanted = limit - (path.stat().st_size if path.exists() else 0)
    return judged(
        f"{name} disk space",
        f"{_mib(free)} free in {folder}; the spool may grow by {_mib(max(0, wanted))}",
        good=free >= wanted,
        advice="Make room, or lower MMS_SPOOL_MAX_BYTES. With a full disk, postbacks are answered"
        " 503 before the spool reaches its limit, and everything else on the disk suffers too.",
    )


SET_ASIDE: Final = (
    "Raise max_message_size in rabbitmq.conf, restart RabbitMQ, then restart the ingress, which"
    " then publishes them. Keep the file: it is the only copy."
)


class _Contents(NamedTuple):
    """The contents of a spool.

    Attributes:
        oldest: when the oldest batch was spooled, seconds since the Unix epoch; None: no batch.
        used: bytes of the file that are in use.
        set_aside: postbacks in batches that are larger than RabbitMQ accepts.
    """

    postbacks: int
    oldest: float | None
    used: int
    set_aside: int


def _read(path: Path) -> _Contents:
    """Raises: sqlite3.Error: the file is damaged, is not a spool, or must not be read."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
    with contextlib.closing(database):
        query = "SELECT coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
        postbacks, oldest = database.execute(query).fetchone()
        pages, free, size = (
            database.execute(f"PRAGMA {each}").fetchone()[0]
            for each in ("page_count", "freelist_count", "page_size")
        )
        tables = database.execute("SELECT name FROM sqlite_schema").fetchall()
        set_aside = 0
        if ("set_aside",) in tables:  # not in a file of an older release
            query = "SELECT coalesce(sum(postbacks), 0) FROM set_aside"
            (set_aside,) = database.execute(query).fetchone()
    return _Contents(postbacks, oldest, (pages - free) * size, set_aside)


def _contents(path: Path, limit: int, name: str) -> Iterator[Finding]:
    try:
        contents = _read(path)
    except sqlite3.Error as error:
        yield wrong(
            f"{name} contents",
            f"{path} cannot be read: {error}",
            "If it is damaged, move it away with its -wal and -shm and restart the ingress. Keep"
            " these files: they may be the only copy of some postbacks.",
        )
        return
    yield _waiting(contents, name)
    if contents.set_aside:
        yield wrong(
            f"{name} set aside",
            f"{counted(contents.set_aside, 'postback')} in batches larger than RabbitMQ accepts",
            SET_ASIDE,
        )
    if contents.postbacks or contents.set_aside:
        yield _full(path, contents, limit, name)


def _waiting(contents: _Contents, name: str) -> Finding:
    if contents.oldest is None:
        return ok(f"{name} contents", "empty")
    age = time.time() - contents.oldest
    return warning(
        f"{name} contents",
        f"{counted(contents.postbacks, 'postback')}, the oldest for {age:.0f} s",
        "An ingress with this MMS_SPOOL_PATH publishes them as soon as RabbitMQ accepts them.",
        follows=("rabbitmq",),
    )


def _full(path: Path, contents: _Contents, limit: int, name: str) -> Finding:
    """Whether the spool can take another batch: it has a limit, and a reserve on its disk."""
    check = f"{name} room"
    if not path.with_name(f"{path.name}-reserve").exists():
        return wrong(
            check,
            "refuses postbacks: its disk was full, and its reserve is used up",
            "Postbacks are answered 503 until it is empty. Make room on its disk, and repair"
            " RabbitMQ; then the spool drains.",
        )
    found = f"{_mib(contents.used)} of {_mib(limit)} (MMS_SPOOL_MAX_BYTES)"
    return judged(
        check,
        found,
        good=contents.used < FULL * limit,
        advice="It is full: postbacks are answered 503 while RabbitMQ is unavailable. Repair"
        " RabbitMQ. If the disk has room, raise MMS_SPOOL_MAX_BYTES and restart the ingress.",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
