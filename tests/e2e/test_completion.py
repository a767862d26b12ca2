"""Shell completion of the installed commands, by the scripts for bash and zsh."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local.services import command

OPTIONS = {
    "mms-admin": ("doct", "doctor"),
    "mms-ingest": ("--proc", "--processes"),
    "mms-simulate": ("--dupl", "--duplicates"),
    "mms-worker": ("--proc", "--processes"),
}
"""By command: the beginning of a word, and the completed word."""


def run(*words: str, **environ: str) -> str:
    """The output of a program that has the commands in its PATH."""
    path = f"{Path(command('mms-admin')).parent}:{os.environ['PATH']}"
    return subprocess.run(
        words,
        env=os.environ | {"PATH": path} | environ,
        capture_output=True,
        check=True,
        text=True,
        timeout=60,
    ).stdout


def variable(name: str) -> str:
    return f"_{name.upper().replace('-', '_')}_COMPLETE"


@pytest.mark.parametrize("name", OPTIONS)
def test_bash_completes(name: str) -> None:
    begun, completed = OPTIONS[name]
    script = f"""
        eval "$({variable(name)}=bash_source {name})"
        COMP_WORDS=({name} {begun}) COMP_CWORD=1
        {variable(name).lower().removesuffix("_complete")}_completion {name}
        complete -p {name} >&2
        echo "${{COMPREPLY[@]}}"
    """
    assert run("bash", "-c", script).split() == [completed]


@pytest.mark.parametrize("name", OPTIONS)
def test_zsh_gets_the_same_words(name: str) -> None:
    begun, completed = OPTIONS[name]
    script = run(name, **{variable(name): "zsh_source"})
    assert f"#compdef {name}" in script
    if shutil.which("zsh"):
        run("zsh", "-n", "-c", script)
    words = {"COMP_WORDS": f"{name} {begun}", "COMP_CWORD": "1"}
    kind, word, *_ = run(name, **{variable(name): "zsh_complete"}, **words).splitlines()
    assert (kind, word) == ("plain", completed)
