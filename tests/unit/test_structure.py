"""The imports, and the length of files: what CONTRIBUTING and the style promise of them."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("ingest", "workers", "shared")

MAY_IMPORT = {
    "ingest": {"ingest", "shared"},
    "workers": {"workers", "shared"},
    "shared": {"shared"},
}
"""The packages that each package may import."""

MAX_LINES = 300
"""Lines of a file of the product; most have less than 250."""

MAX_TEST_LINES = 500

FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
}
"""By the name of the module."""


def imported(path: Path) -> set[str]:
    """Our modules that a file imports when it runs, without those for its types alone."""
    found: set[str] = set()
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{each.name}" for each in node.names}
            found |= {name if name in FILES else node.module for name in names}
    return found & set(FILES)


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from statements(node)


IMPORTS = {name: imported(path) for name, path in FILES.items()}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    allowed = MAY_IMPORT[package]
    assert {
        f"{name} imports {each}"
        for name, modules in IMPORTS.items()
        if name.partition(".")[0] == package
        for each in modules
        if each.partition(".")[0] not in allowed
    } == set()


def test_there_is_no_import_cycle() -> None:
    assert len(list(graphlib.TopologicalSorter(IMPORTS).static_order())) == len(FILES)


def test_a_worker_s_step_imports_no_later_step() -> None:
    """A postback goes through them in this order; `pipeline` and `worker` call them."""
    steps = ["consumer", "decode", "merge", "outbox", "publish"]
    assert [
        f"{later} is imported by {earlier}"
        for at, earlier in enumerate(steps)
        for later in steps[at + 1 :]
        if f"workers.{later}" in IMPORTS[f"workers.{earlier}"]
    ] == []


def test_files_are_short() -> None:
    lengths = {path: path.read_text().count("\n") for path in FILES.values()}
    assert [str(path) for path, lines in lengths.items() if lines > MAX_LINES] == []


def test_files_of_tests_are_short() -> None:
    lengths = {path: path.read_text().count("\n") for path in (ROOT / "tests").rglob("*.py")}
    assert [str(path) for path, lines in lengths.items() if lines > MAX_TEST_LINES] == []


def test_a_test_file_imports_no_other_one() -> None:
    """Helpers of several test files are in tests/support."""
    assert {
        f"{path.name} imports {node.module}"
        for path in (ROOT / "tests").rglob("*.py")
        for node in statements(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tests.")
        and ".test_" in f"{node.module}"
    } == set()
