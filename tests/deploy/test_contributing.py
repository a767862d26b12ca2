"""CONTRIBUTING and deploy/README.md: the targets, folders, files and packages that there are."""

import re
import tomllib

from tests.support.documents import PAGES, ROOT, blocks, links, table, words

CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_make_target_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):.* ##", makefile, re.MULTILINE)) - {"help"}
    assert {words(row[0])[0] for row in table("CONTRIBUTING.md", "target")} == {
        f"make {target}" for target in targets
    }


def test_the_tree_has_every_package() -> None:
    """Folders of `deploy` are in deploy/README.md, those of `tests` in the table of tests."""
    (tree,) = [each for each in blocks(CONTRIBUTING, "") if each.startswith("ingest/")]
    named, parent = set(), ""
    for line in tree.splitlines():
        folders = re.findall(r"(?<!\S)([a-z_]+)/", line)
        parent = parent if line.startswith(" ") else folders.pop(0)
        named |= {f"{parent}/{folder}" for folder in folders} | {parent}
    packages = {
        str(path.parent.relative_to(ROOT))
        for top in ("ingest", "workers", "shared")
        for path in ROOT.glob(f"{top}/**/__init__.py")
    }
    assert {each for each in packages if each.count("/") < 2} <= named
    assert [each for each in named if not (ROOT / each).is_dir()] == []


def test_the_way_of_a_postback_names_files() -> None:
    files = [name for row in table("CONTRIBUTING.md", "step") for name in words(row[1])]
    assert len(files) > 8
    assert [name for name in files if not (ROOT / name).is_file()] == []


def test_every_kind_of_test_is_explained() -> None:
    folders = {
        f"tests/{path.name}"
        for path in (ROOT / "tests").iterdir()
        if path.is_dir() and any(path.glob("test_*.py"))
    }
    assert {words(row[0])[0] for row in table("CONTRIBUTING.md", "directory")} == folders


def test_every_dependency_has_a_reason() -> None:
    project = PYPROJECT["project"]
    required = project["dependencies"] + project["optional-dependencies"]["otel"]
    packages = {re.split(r"[<>=!\[ ]", each)[0] for each in required}
    rows = table("CONTRIBUTING.md", "package")
    named = {
        name for row in rows if "(standard library)" not in row[0] for name in row[0].split(", ")
    }
    assert named == packages


def test_every_file_of_deploy_is_explained() -> None:
    """Files that git does not keep are not meant."""
    there = {path.name for path in (ROOT / "deploy").iterdir()} - {".env", "README.md"}
    ours = {name for name in there if not name.startswith((".", "__"))}
    named = {link.split("/")[0] for link in links(ROOT / "deploy" / "README.md")}
    assert ours - {"Dockerfile.dockerignore"} <= named


def test_the_manual_says_nothing_of_this_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(?:work|tmp/wt|root)\b", page.read_text()), page
