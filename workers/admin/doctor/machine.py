"""This machine: each spool on it, whether it can be written, what waits in it, whether it is full.

A spool on another machine cannot be read; what its ingress counts is in `processes`.
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

_UNSAFE: Final = {
    "tmpfs": "is memory: what was answered 200 goes with the machine",
    "ramfs": "is memory: what was answered 200 goes with the machine",
    "overlay": "may be a container's own layer: what was answered 200 goes with the container",
    "nfs": "is a network file system, where SQLite's locks and write-ahead log are not safe",
    "nfs4": "is a network file system, where SQLite's locks and write-ahead log are not safe",
    "cifs": "is a network file system, where SQLite's locks and write-ahead log are not safe",
}


FULL: Final = 0.95
"""Share of MMS_SPOOL_MAX_BYTES from which a spool may refuse the next batch."""


async def check_machine(settings: Settings, named: Sequence[str] = ()) -> AsyncIterator[Finding]:
    """Each spool: its folder can be written, is on a real disk and has room; what waits in it.

    Args:
        named: more spools than that of the settings, as paths or patterns (`/var/lib/*/spool.db`).
    """
    limit = int(settings.spool_max_bytes)
    if settings.spool_path or not named:
        for finding in _of_the_settings(settings):
            yield finding
    for pattern in named:
        if not (paths := _files(pattern)):
            yield wrong(
                f"spool {pattern}",
                "there is no such file on this machine",
                "Correct it. A spool on another machine cannot be read from here: run doctor"
                " there, or name its ingress with --process, which counts what waits.",
            )
        for path in paths:
            for finding in _spool(path, limit, f"spool {path}"):
                yield finding


def _files(pattern: str) -> list[Path]:
    return [Path(each).absolute() for each in sorted(glob.glob(pattern))]  # noqa: PTH207


def _of_the_settings(settings: Settings) -> Iterator[Finding]:
    if not settings.spool_path:
        yield warning(
            "spool",
            "off (MMS_SPOOL_PATH is empty)",
            "While RabbitMQ is away postbacks are answered 503, and the provider gives up after"
            " 25 minutes. Set MMS_SPOOL_PATH to a file on a local disk.",
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
        f"{name} permissions",
        refused or f"{folder} can be written by {who}",
        good=not refused,
        advice=f"Let {who} (run doctor as the user that runs mms-ingest) write to the folder, the"
        " file and its -wal, -shm and -drain, or set MMS_SPOOL_PATH to where it may.",
    )


def _kind(folder: Path, name: str) -> Finding:
    kind = _file_system(folder)
    advice = "Set MMS_SPOOL_PATH to a file on a local disk, or on a volume that is one."
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
        advice="Make room, or lower MMS_SPOOL_MAX_BYTES: a full disk answers 503 earlier than"
        " you planned, and takes what else is on it along.",
    )


SET_ASIDE: Final = (
    "Raise max_message_size in rabbitmq.conf, restart RabbitMQ and then the ingress, which sends"
    " them then. Keep the file: it is the only copy."
)


class _Contents(NamedTuple):
    """What a spool holds.

    Attributes:
        used: bytes of the file that hold something.
        set_aside: postbacks in batches that are larger than RabbitMQ takes.
        oldest: seconds since the Unix epoch, None when nothing waits.
    """

    postbacks: int
    oldest: float | None
    used: int
    set_aside: int


def _read(path: Path) -> _Contents:
    """Raises: sqlite3.Error: the file is damaged, is no spool, or may not be read."""
    database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
    with contextlib.closing(database):
        query = "SELECT coalesce(sum(postbacks), 0), min(spooled_at) FROM spool"
        postbacks, oldest = database.execute(query).fetchone()
        pages, free, size = (
            database.execute(f"PRAGMA {each}").fetchone()[0]
            for each in ("page_count", "freelist_count", "page_size")
        )
        tables = database.execute("SELECT name FROM sqlite_schema").fetchall()
        aside = 0
        if ("set_aside",) in tables:  # not in a file of an older release
            query = "SELECT coalesce(sum(postbacks), 0) FROM set_aside"
            (aside,) = database.execute(query).fetchone()
    return _Contents(postbacks, oldest, (pages - free) * size, aside)


def _contents(path: Path, limit: int, name: str) -> Iterator[Finding]:
    try:
        contents = _read(path)
    except sqlite3.Error as error:
        yield wrong(
            f"{name} contents",
            f"{path} cannot be read: {error}",
            "If it is damaged, move it away with its -wal and -shm (it may be all that holds some"
            " postbacks) and restart the ingress.",
        )
        return
    yield _waiting(contents, name)
    if contents.set_aside:
        yield wrong(
            f"{name} set aside",
            f"{counted(contents.set_aside, 'postback')} in batches larger than RabbitMQ takes",
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
        "They go to RabbitMQ when it takes them and an ingress with this MMS_SPOOL_PATH runs.",
        follows=("rabbitmq",),
    )


def _full(path: Path, contents: _Contents, limit: int, name: str) -> Finding:
    """Whether the spool takes another batch: it has a limit and a reserve for its disk."""
    check = f"{name} room"
    if not path.with_name(f"{path.name}-reserve").exists():
        return wrong(
            check,
            "takes no more: its disk was full, and it has given up its reserve",
            "Postbacks are answered 503 until it is empty. Make room on its disk, and bring"
            " RabbitMQ back; it drains by itself.",
        )
    found = f"{_mib(contents.used)} of {_mib(limit)} (MMS_SPOOL_MAX_BYTES)"
    return judged(
        check,
        found,
        good=contents.used < FULL * limit,
        advice="It is full: postbacks are answered 503 while RabbitMQ is away. Raise"
        " MMS_SPOOL_MAX_BYTES if the disk has room, and restart the ingress; bring RabbitMQ back.",
    )


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
