"""Private names of libraries: the one file that uses a name lists it, and the library has it.

Private is what begins with an underscore, what aiormq's channel has beyond its abstract class, and
what our subclasses override of redis-py's connections and parsers.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

import aiormq.abc
import pytest

ROOT: Final = Path(__file__).parents[2]
FILES: Final = sorted(
    path.relative_to(ROOT)
    for package in ("ingest", "shared", "workers", "deploy")
    for path in (ROOT / package).rglob("*.py")
)
LIBRARIES: Final = {"aio_pika", "aiohttp", "aiormq", "pamqp", "redis"}
PUBLIC: Final = {"_asdict", "_fields", "_replace"}
"""What every `NamedTuple` has."""

Listed = Mapping[str, tuple[str, ...]]
Namespace = Mapping[str, object]


def namespace(path: Path) -> Namespace:
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    return vars(importlib.import_module(name))


def listed(names: Namespace) -> Listed:
    found = names.get("PRIVATE", {})
    assert isinstance(found, dict)
    return found


LISTS: Final = {str(path): found for path in FILES if (found := listed(namespace(path)))}


@pytest.mark.parametrize("file", LISTS)
def test_the_installed_library_has_each_listed_name(file: str) -> None:
    assert missing(LISTS[file]) == []


@pytest.mark.parametrize("file", LISTS)
def test_each_listed_name_is_used(file: str) -> None:
    source = ast.parse((ROOT / file).read_text())
    used = {each.attr for each in ast.walk(source) if isinstance(each, ast.Attribute)}
    defined = {each.name for each in ast.walk(source) if isinstance(each, FUNCTION)}
    assert {name for names in LISTS[file].values() for name in names} <= used | defined


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
@pytest.mark.parametrize("file", LISTS)
def test_the_pinned_version_is_one_that_the_file_was_tested_with(file: str, path: Path) -> None:
    (library,) = {cls.partition(".")[0] for cls in LISTS[file]}
    tested = namespace(Path(file))["TESTED"]
    pinned = re.search(rf"^{library}==(\S+)", path.read_text(), re.MULTILINE)
    assert pinned is not None
    assert isinstance(tested, frozenset)
    assert pinned[1] in tested


def test_each_listed_name_is_in_one_file() -> None:
    files = Counter(
        f"{cls}.{name}" for each in LISTS.values() for cls, names in each.items() for name in names
    )
    assert [name for name, count in files.items() if count > 1] == []


def test_no_file_uses_a_private_name_that_it_does_not_list() -> None:
    found = {
        str(path): names
        for path in FILES
        if (names := unlisted((ROOT / path).read_text(), namespace(path)))
    }
    assert found == {}


def test_the_files_that_lean_on_private_names() -> None:
    assert set(LISTS) == {
        "ingest/http/fast_path.py",
        "shared/rabbitmq/confirms.py",
        "shared/redis/hiredis.py",
    }


def test_a_name_that_the_library_does_not_have_is_reported() -> None:
    private = {
        "aiohttp.web_protocol.RequestHandler": ("_waiter", "_made_up"),
        "aiormq.Channel": ("confirmations", "made_up_too"),
    }
    assert missing(private) == [
        "aiohttp.web_protocol.RequestHandler._made_up",
        "aiormq.Channel.made_up_too",
    ]


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("class Ours(RequestHandler):\n def f(self):\n  self._waiter = 1", "_waiter"),
        ("class Ours(RequestHandler):\n def _process_keepalive(self): 1", "_process_keepalive"),
        ("class Ours(Connection):\n def pack_command(self): 1", "pack_command"),
        (
            "class Ours:\n def f(self):\n  self.session.channel.confirmations.clear()",
            "confirmations",
        ),
        ("def f(connection): connection._writer.close()", "_writer"),
    ],
)
def test_a_private_name_that_is_not_listed_is_reported(line: str, name: str) -> None:
    imports = "from aiohttp.web_protocol import RequestHandler\n"
    imports += "from redis.asyncio.connection import Connection\n"
    names: dict[str, object] = {"__name__": "ours"}
    exec(imports + line, names)
    assert unlisted(line, names) == [name]
    assert unlisted(line, names | {"PRIVATE": {"any.Class": (name,)}}) == []


def missing(private: Listed) -> list[str]:
    """Names that are listed and that the installed library does not have."""
    return [
        f"{path}.{name}"
        for path, names in private.items()
        for name in names
        if name not in names_of(_class(path))
    ]


def unlisted(source: str, names: Namespace) -> list[str]:
    """Private names of libraries that a file uses and does not list.

    Args:
        names: the file's own, to find the classes that it defines.
    """
    known = {name for each in listed(names).values() for name in each}
    return sorted(set(_private_uses(ast.parse(source), names)) - known - PUBLIC)


FUNCTION: Final = (ast.FunctionDef, ast.AsyncFunctionDef)


def _private_uses(source: ast.Module, names: Namespace) -> Iterator[str]:
    for node in ast.walk(source):
        if isinstance(node, ast.ClassDef):
            cls = names.get(node.name)
            yield from _uses_of_bases(node, cls) if isinstance(cls, type) else ()
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            of_a_channel = owner.endswith("channel") and node.attr in CHANNEL_INTERNALS
            of_others = _is_private(node.attr) and owner not in {"self", "cls", "super()"}
            if of_a_channel or of_others:
                yield node.attr


def _uses_of_bases(node: ast.ClassDef, cls: type) -> Iterator[str]:
    """Private names of a class's bases in a library that its body uses or overrides."""
    bases = [each for each in cls.__mro__ if each.__module__.partition(".")[0] in LIBRARIES]
    theirs = frozenset[str]().union(*map(names_of, bases))
    of_redis = any(each.__module__.startswith("redis.") for each in bases)
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and _is_private(each.attr) and each.attr in theirs:
            yield each.attr
        if isinstance(each, FUNCTION) and each.name in theirs:
            public = of_redis and not each.name.startswith("_")
            if public or _is_private(each.name):
                yield each.name


@cache
def names_of(cls: type) -> frozenset[str]:
    """All names of a class and of its instances."""
    annotated = map(inspect.get_annotations, cls.__mro__)
    return frozenset(dir(cls)).union(*map(_attributes_set, cls.__mro__), *annotated)


@cache
def _attributes_set(cls: type) -> frozenset[str]:
    """The attributes that a class's methods give to `self`."""
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # it is not written in Python
        return frozenset()
    return frozenset(
        each.attr
        for each in ast.walk(source)
        if isinstance(each, ast.Attribute)
        and isinstance(each.ctx, ast.Store)
        and ast.unparse(each.value) == "self"
    )


CHANNEL_INTERNALS: Final = names_of(aiormq.Channel) - names_of(aiormq.abc.AbstractChannel)


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, type), f"{path} is not a class"
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")
