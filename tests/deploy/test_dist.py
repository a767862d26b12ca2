"""What `make dist` builds, without the installations, which take minutes."""

import re
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from deploy import dist

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION: str = PROJECT["version"]


def test_the_wheel_and_the_source_distribution(tmp_path: Path) -> None:
    wheel, sdist = dist.build_python(tmp_path, VERSION)
    assert {f"{package}/py.typed" for package in dist.PACKAGES} <= set(
        zipfile.ZipFile(wheel).namelist()
    )
    assert sdist.name == f"mms_postbacks-{VERSION}.tar.gz"


def test_a_wheel_that_lacks_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dist, "PACKAGES", (*dist.PACKAGES, "deploy/rabbitmq"))
    with pytest.raises(dist.DistError, match="the wheel lacks deploy/rabbitmq/enabled_plugins"):
        dist.build_python(tmp_path, VERSION)


def test_the_image_context_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    first = dist.build_context(tmp_path, VERSION)
    dist.check_context(first)
    content = first.read_bytes()
    assert dist.build_context(tmp_path, VERSION).read_bytes() == content


def test_a_dockerfile_that_copies_what_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = dist.build_context(tmp_path, VERSION)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(dist.DOCKERFILE.read_text().replace("COPY shared", "COPY missing"))
    monkeypatch.setattr(dist, "DOCKERFILE", dockerfile)
    with pytest.raises(dist.DistError, match="the Dockerfile copies missing"):
        dist.check_context(context)


def test_the_chart_is_packed(tmp_path: Path) -> None:
    dist.build_chart(tmp_path, VERSION)
    assert (tmp_path / f"mms-postbacks-{VERSION}.tgz").stat().st_size > 1000


def test_a_chart_of_another_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(dist.DistError, match=r"Chart\.yaml's version is not 9\.9\.9"):
        dist.build_chart(tmp_path, "9.9.9")


def test_there_is_one_version() -> None:
    chart = yaml.safe_load((dist.CHART / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"]} == {VERSION}
    newest = re.search(r"^## \[?(\d[\w.]*)\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION


def test_the_manual_names_the_files_that_are_built() -> None:
    text = (ROOT / "deploy" / "docs" / "deployment.md").read_text()
    named = set(re.findall(r"\bdist/(mms[\w.-]+)", text))
    assert named == {
        f"mms_postbacks-{VERSION}-py3-none-any.whl",
        f"mms-postbacks-image-{VERSION}.tar.gz",
        f"mms-postbacks-{VERSION}.tgz",
    }
    assert f"-t mms-postbacks:{VERSION} " in text


def test_a_folder_with_other_files_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(dist.DistError, match="is not empty"):
        dist.build(tmp_path)
    assert (tmp_path / "precious").exists()


def test_the_github_workflow_runs_what_ci_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text())
    steps = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert steps == [line for line in script if line.startswith("make ")]
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert [f"Programming Language :: Python :: {each}" for each in pythons] == [
        each for each in PROJECT["classifiers"] if each.startswith("Programming Language")
    ]


def test_pre_commit_runs_what_make_check_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"].removeprefix(".venv/bin/python") for hook in config["repos"][0]["hooks"]]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    checks = re.findall(r"\$\(PYTHON\)(.*)", recipe[1])
    assert hooks == [each.removesuffix(" .") for each in checks if "pytest" not in each]


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-dev.txt"])
def test_what_is_locked_is_within_the_bounds(lock: str) -> None:
    text = (ROOT / lock).read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))
    # The image, which requirements.txt is for, can send traces too.
    extra = PROJECT["optional-dependencies"]["otel"]
    wanted = [Requirement(each) for each in [*PROJECT["dependencies"], *extra]]
    assert {each.name for each in wanted} <= locked.keys()
    for each in wanted:
        assert each.specifier.contains(locked[each.name]), each
        assert {"<", ">="} <= {one.operator for one in each.specifier}, f"{each} has one bound"
