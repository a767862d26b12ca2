"""`make matrix`: runs `make test` of the last commit in other Debians, and prints a table.

A root is a folder that debootstrap fills with a Debian. `make test` installs its servers there, as
on a new machine. A command in a root has its own mounts and process ids (namespaces), so its mounts
and processes end with it, however it ends. The network is this machine's.
"""

import argparse
import contextlib
import os
import platform
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import click

PROJECT: Final = Path(__file__).parents[1]
CHECKOUT: Final = Path("srv/mms-postbacks")
"""The folder of the checkout in a root."""

CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's file of trusted certificates."""

_VERSIONS: Final = """
import importlib.metadata, platform
print(platform.python_version(), importlib.metadata.version("aiohttp"))
"""

PYTHON: Final = ".venv/bin/python"
TEST: Final = ("make", "test")

_ENTER: Final = """
set -e
root=$1 where=$2
shift 2
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
# The installation of a package must not change the kernel's parameters, which are this machine's.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
status=0
# The shell stays as the first process, which waits for processes whose parents have ended.
chroot "$root" env -i -C "/$where" "$@" || status=$?
exit "$status"
"""


class Debian(NamedTuple):
    """One row of the table: a Debian, and its package of a server with the protocol of Redis."""

    name: str
    suite: str
    state: str


DEBIANS: Final = (
    Debian("debian13", "trixie", "redis-server"),
    Debian("debian13-valkey", "trixie", "valkey-server"),
)


class Row(NamedTuple):
    """The result of one Debian."""

    name: str
    python: str
    rabbitmq: str
    state: str
    aiohttp: str
    result: str
    passed: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--roots", type=Path, required=True, help="folder that keeps the roots")
    parser.add_argument("--only", choices=[debian.name for debian in DEBIANS], help="one of them")
    parser.add_argument("--minutes", type=float, default=60, help="longest time for each")
    arguments = parser.parse_args()
    # With this exception `subprocess.run` kills its process, as for Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    chosen = [debian for debian in DEBIANS if arguments.only in {None, debian.name}]
    commit = _output(("git", "rev-parse", "HEAD"))
    try:
        roots = arguments.roots.absolute()
        rows = [run(debian, commit, roots, arguments.minutes) for debian in chosen]
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    click.echo(f"\n`make test` of {commit[:10]} on {platform.machine()}:\n")
    click.echo("\n".join(table(rows)))
    sys.exit(not all(row.passed for row in rows))


def run(debian: Debian, commit: str, roots: Path, minutes: float) -> Row:
    """Run `make test` of a commit in this Debian; make its root first if it is missing."""
    root, log = roots / debian.name, roots / f"{debian.name}.log"
    make_root(debian, root, log)
    lay_out(root / CHECKOUT, commit)
    click.echo(f"{debian.name}: make test; its output goes to {log}")
    began = time.monotonic()
    status: int | None
    with log.open("wb") as out, contextlib.suppress(subprocess.TimeoutExpired):
        status = None
        status = subprocess.run(
            entering(root, *TEST), stdout=out, stderr=out, timeout=60 * minutes, check=False
        ).returncode
    text = log.read_text(errors="replace")
    took = f"{(time.monotonic() - began) / 60:.0f} min"
    if status != 0:
        click.echo("\n".join(failures(text)) or text[-2000:])
    return Row(
        debian.name,
        *versions(root, debian),
        result=f"{outcome(status, text)}, {took}",
        passed=status == 0,
    )


def make_root(debian: Debian, root: Path, log: Path) -> None:
    """Make a root, unless it was made completely before."""
    made = root.with_suffix(".made")
    if not made.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        click.echo(f"{debian.name}: making it in {root}")
        packages = f"--include=git,make,ca-certificates,{debian.state}"
        command = ("debootstrap", "--variant=minbase", packages, debian.suite, str(root))
        path = f"{os.environ['PATH']}:/usr/sbin"
        with log.open("wb") as out:
            done = subprocess.run(
                (*command, *mirror(_sources())),
                env=os.environ | {"PATH": path},
                stdout=out,
                stderr=out,
                check=False,
            )
        if done.returncode:
            sys.exit(f"debootstrap failed; the end of {log}:\n{log.read_text()[-2000:]}")
        made.touch()
    # Packages that are installed later must not start services.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    trusted = ssl.get_default_verify_paths().cafile
    if trusted:
        shutil.copy(trusted, root / CERTIFICATES.relative_to("/"))


def lay_out(checkout: Path, commit: str) -> None:
    """Check out this commit; an existing `.venv` stays and is updated by `make test`."""
    for command in (
        ("init", "--quiet", str(checkout)),
        ("-C", str(checkout), "fetch", "--quiet", "--depth=1", f"file://{PROJECT}", commit),
        ("-C", str(checkout), "checkout", "--quiet", "--force", "--detach", "FETCH_HEAD"),
        ("-C", str(checkout), "clean", "--quiet", "-ffdx", "--exclude=/.venv"),
    ):
        subprocess.run(("git", *command), check=True)


def entering(root: Path, *command: str) -> Sequence[str]:
    """The command that runs another command in the root's checkout, as the user root."""
    listed = _output((sys.executable, "-m", "pip", "config", "list"))
    variables = {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PIP_CERT": str(CERTIFICATES),
        **{name: os.environ[name] for name in os.environ if name.lower().endswith("_proxy")},
        **pip_settings(listed),
    }
    unshare = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
    assigned = (f"{name}={value}" for name, value in variables.items())
    return (*unshare, "sh", "-c", _ENTER, "sh", str(root), str(CHECKOUT), *assigned, *command)


def pip_settings(listed: str) -> Mapping[str, str]:
    """Variables with which pip uses the same indexes in a root as here.

    Args:
        listed: the output of `pip config list`. Files and folders of this machine are left out,
            because a root does not have them.
    """
    settings = {}
    for name, value in re.findall(
        r"^(?:global|install|:env:)\.([\w-]+)='(.*)'$", listed, re.MULTILINE
    ):
        words = [word for word in value.split() if not word.startswith(("/", "file:"))]
        if words:
            settings[f"PIP_{name.upper().replace('-', '_')}"] = " ".join(words)
    return settings


def mirror(sources: Iterable[str]) -> Sequence[str]:
    """The archive of Debian in apt's lists; empty: debootstrap uses its default."""
    found = (
        re.search(r"^(?:URIs:|deb(?: \[.*?\])?) *(\S+/debian/?)(?:\s|$)", text, re.MULTILINE)
        for text in sources
    )
    return [match[1] for match in found if match][:1]


def _sources() -> Iterable[str]:
    apt = Path("/etc/apt")
    lists = (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.[ls]*")))
    return [
        path.read_text() for path in lists if path.suffix in {".list", ".sources"} and path.exists()
    ]


def versions(root: Path, debian: Debian) -> tuple[str, str, str, str]:
    """The versions of Python, RabbitMQ, Redis or Valkey, and aiohttp in a root; "?": missing."""
    python, _, aiohttp = _output(entering(root, PYTHON, "-c", _VERSIONS)).partition(" ")
    rabbitmq, state = (
        # Without Debian's parts: 5:8.0.2-3+deb13u3 is 8.0.2.
        re.sub(
            r"^\d+:|[-+].*$", "", _output(entering(root, "dpkg-query", "-f${Version}", "-W", name))
        )
        for name in ("rabbitmq-server", debian.state)
    )
    kind = debian.state.removesuffix("-server").capitalize()
    return python or "?", rabbitmq or "?", f"{kind} {state or '?'}", aiohttp or "?"


def outcome(status: int | None, log: str) -> str:
    """The result of `make test` in words.

    Args:
        status: the exit status; None: the time limit was reached.
        log: the output.
    """
    counts = re.findall(r"^=+ (.*\d (?:passed|failed|errors?).*) in [\d.]+s", log, re.MULTILINE)
    result = counts[-1] if counts else "no test ran to its end"
    if status is None:
        return "time limit reached"
    return result if status == 0 else f"FAILED ({result})"


def failures(log: str) -> Sequence[str]:
    """The lines of pytest's summary with the failed tests."""
    return re.findall(r"^(?:FAILED|ERROR) .*$", log, re.MULTILINE)


def table(rows: Sequence[Row]) -> Sequence[str]:
    """The rows as a table in Markdown."""
    head = ("", "Python", "RabbitMQ", "state", "aiohttp", "`make test`")
    cells = [head, *(row[:-1] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in cells
    ]
    return [lines[0], f"|{'|'.join('-' * (width + 2) for width in widths)}|", *lines[1:]]


def _output(command: Sequence[str]) -> str:
    """The output of a command, stripped; empty if it fails."""
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    main()
