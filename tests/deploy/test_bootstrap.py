"""What bootstrap.sh and make find on machines other than this one; the programs are stand-ins."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLAIN_PATH = "/usr/bin:/bin"
"""Of an ordinary user of Debian, who has no /usr/sbin."""


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_python_that_a_job_has_chosen_is_used(tmp_path: Path) -> None:
    """A GitHub runner has Python 3.12 as well, whatever version the job has set up as `python3`."""
    script = tmp_path / "deploy" / "local" / "bootstrap.sh"
    script.parent.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "local" / "bootstrap.sh", script)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "requirements-dev.txt").touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        says = f'case $1 in -c) ;; --version) echo "the one named {name}";; *) exit 3;; esac'
        program(programs, name, says)
    done = subprocess.run(
        ("sh", str(script), "venv"),
        env={"PATH": f"{programs}:{PLAIN_PATH}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "making .venv with the one named python3 ..." in done.stdout
    assert done.returncode == 3


def test_make_finds_the_servers_of_debian(tmp_path: Path) -> None:
    """haproxy and nginx are in /usr/sbin, which is not in the PATH of every user."""
    (tmp_path / "path.mk").write_text('path:\n\t@echo "$$PATH"\n')
    done = subprocess.run(
        ("make", "-s", "-f", str(ROOT / "Makefile"), "-f", str(tmp_path / "path.mk"), "path"),
        env={name: text for name, text in os.environ.items() if name != "MAKEFLAGS"}
        | {"PATH": PLAIN_PATH},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "/usr/sbin" in done.stdout.strip().split(":")
