"""The documents: every link, command, option, variable and make target in them exists."""

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import ingest.main
import ingest.simulate.main
import workers.main
from shared.postback import normalise
from shared.rabbitmq import topology
from shared.settings.describe import describe
from tests.support import tables
from tests.support.documents import PAGES, ROOT, anchors, blocks, links, words
from workers.admin import commands

DOCS = ROOT / "deploy" / "docs"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"

COMMANDS: dict[str, click.Command] = {
    "mms-ingest": ingest.main.main,
    "mms-worker": workers.main.main,
    "mms-admin": commands.main,
    "mms-simulate": ingest.simulate.main.main,
}

on_every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES]
)


@on_every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


def test_every_page_of_the_manual_is_linked() -> None:
    for page in DOCS.glob("*.md"):
        assert f"deploy/docs/{page.name}" in links(ROOT / "README.md")
        assert f"docs/{page.name}" in links(ROOT / "deploy" / "README.md")


@on_every_page
def test_shell_blocks_are_shell(page: Path) -> None:
    for block in blocks(page, "sh"):
        script = block.replace("<this repository>", "repository")
        done = subprocess.run(
            ("bash", "-n"), input=script, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


@on_every_page
def test_python_and_toml_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")
    for block in blocks(page, "toml"):
        tomllib.loads(block)


@on_every_page
def test_every_command_and_option_exists(page: Path) -> None:
    for command_line in _command_lines(page):
        name, *arguments = command_line
        command: click.Command = COMMANDS[name]
        while isinstance(command, click.Group) and arguments and arguments[0][0] != "-":
            assert arguments[0] in command.commands, command_line
            command = command.commands[arguments.pop(0)]
        known = {option for each in command.params for option in each.opts} | {"--help"}
        options = {each.partition("=")[0] for each in arguments if each.startswith("--")}
        assert options <= known, command_line


def _command_lines(page: Path) -> Iterator[list[str]]:
    """Each call of one of our commands in a shell block or between backticks."""
    text = re.sub(r"^```\w*$|\\\n", "", page.read_text(), flags=re.MULTILINE)
    shell = "".join(blocks(page, "sh")).replace("\\\n", "")
    for line in [*shell.splitlines(), *words(text)]:
        for part in re.split(r"[|;&]|\$\(", line):
            found = re.search(r"\b(mms-(?:ingest|worker|admin|simulate))(?= |$)(.*)", part)
            if found and not re.search(r"mms-\w+@|\.service", part):
                yield [found[1], *shlex.split(found[2].replace('"', ""), comments=True)]


@on_every_page
def test_every_python_module_and_option_exists(page: Path) -> None:
    for module in re.findall(r"python -m ([\w.]+)", page.read_text()):
        assert importlib.util.find_spec(module), module
    for block in blocks(page, "sh"):
        for module, options in re.findall(r"python -m ([\w.]+)(.*)", block):
            command = (sys.executable, "-m", module, "--help")
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            for option in re.findall(r"--[a-z-]+", options):
                assert option in done.stdout, (module, option)


def test_the_manual_has_every_command() -> None:
    text = "".join(page.read_text() for page in DOCS.glob("*.md"))
    for name, command in _leaves("mms-admin", commands.main):
        assert f"`{name}" in text, f"{name}: {command.get_short_help_str()}"
    for name in COMMANDS:
        assert f"`{name}" in text


def _leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    for part, each in command.commands.items():
        yield from _leaves(f"{name} {part}", each)


def test_runbooks_name_commands_that_exist() -> None:
    for path in (RULES, *(ROOT / "deploy" / "helm").rglob("*.txt")):
        named = re.findall(r"mms-admin ([a-z-]+)(?: ([a-z]+))?", path.read_text())
        assert named
        for name, part in named:
            command = commands.main.commands[name]
            assert not isinstance(command, click.Group) or part in command.commands, (name, part)


@on_every_page
def test_every_make_target_exists(page: Path) -> None:
    named = set(re.findall(r"`make (\w+)|^make (\w+)", page.read_text(), re.MULTILINE))
    assert {one or other for one, other in named} <= _targets()


def _targets() -> set[str]:
    return set(re.findall(r"^(\w+):.* ##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_continuous_integration_runs_what_the_readme_says() -> None:
    (block,) = [each for each in blocks(ROOT / "README.md", "sh") if "make run" in each]
    assert "make test" in block
    assert "make test" in (ROOT / ".ci" / "run").read_text().splitlines()


@on_every_page
def test_every_variable_is_a_setting(page: Path) -> None:
    named = set(re.findall(r"(?<![\w_])MMS_[A-Z0-9_]*[A-Z0-9]", page.read_text()))
    assert {each for each in named if not _is_setting(each)} == set()


def _is_setting(name: str) -> bool:
    known = {row.variable for row in describe()} | {"MMS_CONFIG", normalise.ORIGIN}
    name = name.removesuffix("_FILE")
    # MMS_SOURCE_<NAME>_TOKEN; and what haproxy.cfg reads.
    others = re.compile(
        r"MMS_SOURCE(_[A-Z]+_(TOKEN|BASIC|ALLOW|RATE))?|MMS_INGRESS_\d(_ADMIN_PORT)?"
    )
    return name in known or others.fullmatch(name) is not None


@on_every_page
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = re.findall(
        r"(?<![\w./-])(?:deploy|tests|shared|ingest|workers)/[\w./*@-]*\w/?", page.read_text()
    )
    named = [each for each in named if each != "deploy/.env"]  # its reader makes it
    assert [each for each in named if not list(ROOT.glob(each))] == []


@on_every_page
def test_every_metric_alert_and_queue_that_is_named_exists(page: Path) -> None:
    text = "\n".join(words(page.read_text()))
    metrics = {name for name, *_ in tables.metrics()}
    assert set(re.findall(r"\bmms_(?:ingest|worker|unknown|outcomes)\w+", text)) <= metrics
    alerts = set(re.findall(r"- alert: (\w+)", RULES.read_text()))
    assert set(re.findall(r"\bMms[A-Z]\w+", text)) <= alerts
    queues = set(re.findall(r"\bmms\.(?:postbacks|events|dead)(?:\.\w+)*", text))
    assert queues <= {*topology.EXCHANGES, *topology.QUEUES}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 129
