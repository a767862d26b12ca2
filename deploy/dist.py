"""`make dist`: builds everything that a user installs into dist/, and checks each of it.

* the wheel and the source distribution: each is installed into an empty virtual environment, where
  all commands run and an ingress answers a postback;
* the image's build context: what `docker build` gets, with a Dockerfile that hadolint accepts;
* the Helm chart as a package, linted and rendered by Helm;
* `mms.toml`: every setting with its default;
* shell completion for bash, zsh and fish;
* SHA256SUMS.

The wheel, the source distribution and the build context depend on the commit alone: the times in
them are that of the last commit.
"""

import argparse
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from deploy.local.ports import free_port

ROOT: Final = Path(__file__).parents[1]
DIST: Final = ROOT / "dist"
CHART: Final = ROOT / "deploy" / "helm" / "mms-postbacks"
DOCKERFILE: Final = ROOT / "deploy" / "Dockerfile"
SHELLS: Final = ("bash", "zsh", "fish")
PACKAGES: Final = ("ingest", "workers", "shared")

STEP_LIMIT: Final = 600.0
"""Seconds that one command may take; an installation downloads its dependencies."""

ANSWER_LIMIT: Final = 30.0
"""Seconds until a freshly installed ingress answers a postback."""

POSTBACK: Final = (
    b'{"origin":"MMS_MT","code":"N101","status":"Message Sent","tracking-id":"dist-1"}'
)


class DistError(Exception):
    """Something that a user would install is not as it should be."""


def main() -> None:
    """Build and check; exit with status 1 and a line that says what is wrong."""
    parser = argparse.ArgumentParser(description="Build and check all that a user installs.")
    parser.add_argument("--out", type=Path, default=DIST, help="folder; default: dist")
    out: Path = parser.parse_args().out.absolute()
    try:
        build(out)
    except DistError as error:
        print(f"make dist: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def build(out: Path) -> None:
    """Build all of it into an empty folder; only what is in `dist` is removed first.

    Raises:
        DistError: a build or a check failed, or another folder has files.
    """
    if out != DIST and out.exists() and any(out.iterdir()):
        raise DistError(f"{out} is not empty; name a folder that is empty or does not exist")
    began = time.monotonic()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version, commands = project["version"], sorted(project["scripts"])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    say(f"building mms-postbacks {version} into {out}")
    wheel, sdist = build_python(out, version)
    context = build_context(out, version)
    check_context(context)
    build_chart(out, version)
    with tempfile.TemporaryDirectory(prefix="mms-dist-") as folder:
        for package in (wheel, sdist):
            say(f"installing {package.name} into an empty virtual environment")
            binaries = install(package, Path(folder, package.name))
            check_commands(binaries, commands, version)
            check_ingress(binaries, Path(folder, f"{package.name}.run"))
        write_sample(binaries, out)
        write_completion(binaries, commands, out)
    write_sums(out)
    say(f"done in {time.monotonic() - began:.0f} s; in {out} are:")
    for path in files(out):
        print(f"  {path.relative_to(out)}  {path.stat().st_size:,} bytes")


def build_python(out: Path, version: str) -> tuple[Path, Path]:
    """The wheel and the source distribution, with everything in them that belongs there."""
    say("building the wheel and the source distribution")
    run(sys.executable, "-m", "hatchling", "build", "-d", str(out))
    wheel = only(out, f"mms_postbacks-{version}-*.whl")
    sdist = only(out, f"mms_postbacks-{version}.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"mms_postbacks-{version}.dist-info/METADATA").decode()
    code = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    if missing := sorted(code - names):
        raise DistError(f"the wheel lacks {', '.join(missing)}")
    if strange := sorted(each for each in names - code if ".dist-info/" not in each):
        raise DistError(f"the wheel has {', '.join(strange)}, which is not part of a package")
    for field in (f"Version: {version}", "Description-Content-Type: text/markdown"):
        if f"\n{field}\n" not in metadata:
            raise DistError(f"the wheel's metadata lacks {field!r}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    if missing := sorted({"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"} - inside):
        raise DistError(f"the source distribution lacks {', '.join(missing)}")
    return wheel, sdist


def build_context(out: Path, version: str) -> Path:
    """What `docker build -f deploy/Dockerfile - <` this file needs, and nothing else."""
    say("packing the image's build context")
    context = out / f"mms-postbacks-image-{version}.tar.gz"
    ignored = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    paths = [DOCKERFILE, *(path for name in allowed for path in files(ROOT / name))]
    with (
        context.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=commit_time()) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(paths):
            content = path.read_bytes()
            entry = tarfile.TarInfo(str(path.relative_to(ROOT)))
            entry.size, entry.mtime, entry.mode = len(content), commit_time(), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return context


def check_context(context: Path) -> None:
    """Hadolint accepts the Dockerfile, each COPY has its source; Docker builds it if it can."""
    say("checking the Dockerfile with hadolint")
    run(str(Path(sys.executable).with_name("hadolint")), str(DOCKERFILE))
    with tarfile.open(context) as archive:
        names = archive.getnames()
    for line in DOCKERFILE.read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--"):
            for source in words[1:-1]:
                if not any(name == source or name.startswith(f"{source}/") for name in names):
                    raise DistError(f"the Dockerfile copies {source}, which the context lacks")
    if shutil.which("docker") and succeeds("docker", "info"):
        say("building the image with Docker")
        with context.open("rb") as stream:
            run("docker", "build", "-q", "-f", "deploy/Dockerfile", "-", stdin=stream)
    else:
        say("no Docker daemon here: the image itself is not built")


_PACKAGE: Final = """
import helm_python, json, sys
chart, out = sys.argv[1:]
path = helm_python.package(chart, destination=out)
found = helm_python.lint(path)
with helm_python.Chart.load(path) as packed:
    manifests = packed.render({}, name="demo", namespace="prod")
print(json.dumps({"path": path, "lint": found, "manifests": manifests}))
"""


def build_chart(out: Path, version: str) -> None:
    """The chart as a package of this version, which Helm's engine lints and renders."""
    say("packing the Helm chart")
    packed: dict[str, Any] = json.loads(run(sys.executable, "-c", _PACKAGE, str(CHART), str(out)))
    chart = only(out, "*.tgz")
    if chart.name != f"mms-postbacks-{version}.tgz":
        raise DistError(f"Chart.yaml's version is not {version}: the package is {chart.name}")
    worst = [each for each in packed["lint"].get("messages", []) if each.get("severity", 0) > 1]
    if worst:
        raise DistError(f"Helm finds faults in the chart: {worst}")
    if not any(f"mms-postbacks:{version}" in text for text in packed["manifests"].values()):
        raise DistError(f"no pod of the chart runs the image mms-postbacks:{version}")


def install(package: Path, folder: Path) -> Path:
    """Install a package and its dependencies; the folder of its commands."""
    run(sys.executable, "-m", "venv", str(folder))
    binaries = folder / "bin"
    pip = (str(binaries / "python"), "-m", "pip", "install", "--disable-pip-version-check", "-q")
    run(*pip, str(package))
    run(str(binaries / "python"), "-m", "pip", "check", "--disable-pip-version-check")
    return binaries


def check_commands(binaries: Path, commands: list[str], version: str) -> None:
    """Each command says its version and how it is used."""
    for command in commands:
        said = run(str(binaries / command), "--version", cwd=binaries)
        if version not in said:
            raise DistError(f"{command} --version says {said.strip()!r}, not {version}")
        if "Usage:" not in run(str(binaries / command), "--help", cwd=binaries):
            raise DistError(f"{command} --help does not say how it is used")


def check_ingress(binaries: Path, folder: Path) -> None:
    """An installed ingress, without RabbitMQ, spools a postback, answers 200 and stops cleanly."""
    folder.mkdir()
    port, admin = free_ports()
    environment = {
        "MMS_AMQP_URL": "amqp://127.0.0.1:9/",  # the discard port: nothing listens there
        "MMS_INGEST_PORT": str(port),
        "MMS_ADMIN_PORT": str(admin),
        "MMS_SPOOL_PATH": str(folder / "spool.db"),
    }
    with subprocess.Popen(
        [binaries / "mms-ingest"],
        cwd=folder,
        env=clean_environment() | environment,
        stderr=subprocess.PIPE,
        text=True,
    ) as ingress:
        status = first_status(port)
        ingress.send_signal(signal.SIGTERM)
        try:
            _, log = ingress.communicate(timeout=ANSWER_LIMIT)
        except subprocess.TimeoutExpired:
            ingress.kill()
            raise DistError("the installed mms-ingest does not stop on SIGTERM") from None
    if status != HTTPStatus.OK or ingress.returncode != 0:
        raise DistError(
            f"the installed mms-ingest answered {status} and ended with status"
            f" {ingress.returncode}:\n{log}"
        )


def first_status(port: int) -> int:
    """The status of the first answer to a postback; 0 if there is none within `ANSWER_LIMIT`."""
    deadline = time.monotonic() + ANSWER_LIMIT
    while time.monotonic() < deadline:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_LIMIT)
        try:
            connection.request("POST", "/postbacks", POSTBACK)
            return connection.getresponse().status
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    return 0


def write_sample(binaries: Path, out: Path) -> None:
    """`mms.toml` as the installed command writes it."""
    say("writing mms.toml")
    (out / "mms.toml").write_text(run(str(binaries / "mms-admin"), "settings", "--sample"))


def write_completion(binaries: Path, commands: list[str], out: Path) -> None:
    """What a shell sources to complete a command's options; click makes it."""
    say("writing shell completion")
    folder = out / "completion"
    folder.mkdir()
    for command in commands:
        for shell in SHELLS:
            variable = f"_{command.upper().replace('-', '_')}_COMPLETE"
            script = run(str(binaries / command), environment={variable: f"{shell}_source"})
            if command not in script:
                raise DistError(f"{command} gives no completion for {shell}")
            (folder / f"{command}.{shell}").write_text(script)


def write_sums(out: Path) -> None:
    """SHA256SUMS, as `sha256sum --check` reads it."""
    sums = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(out)}\n"
        for path in files(out)
    ]
    (out / "SHA256SUMS").write_text("".join(sums))


def run(
    *words: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    stdin: io.BufferedReader | None = None,
) -> str:
    """What a command prints.

    Raises:
        DistError: it failed; with what it said.
    """
    done = subprocess.run(
        words,
        cwd=cwd,
        env=clean_environment() | dict(environment or {}),
        stdin=stdin or subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_LIMIT,
        check=False,
    )
    if done.returncode != 0:
        raise DistError(f"{' '.join(words[:6])} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def succeeds(*words: str) -> bool:
    """Whether a command ends with status 0."""
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def clean_environment() -> dict[str, str]:
    """Our environment without settings of ours, and with the time of the last commit."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MMS_")}
    return kept | {"SOURCE_DATE_EPOCH": str(commit_time())}


def commit_time() -> int:
    """The time of the last commit, in seconds since the Unix epoch; 1980 outside of git."""
    done = subprocess.run(
        ("git", "log", "-1", "--format=%ct"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else 315532800


def free_ports() -> tuple[int, int]:
    """Two ports of 127.0.0.1 that nobody listens on now."""
    return free_port(), free_port()


def only(folder: Path, pattern: str) -> Path:
    """The one file that matches."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise DistError(f"{len(found)} files match {pattern}, not one: {found}")
    return found[0]


def files(path: Path) -> Iterator[Path]:
    """A file, or all files below a folder, in order, without caches."""
    if path.is_file():
        yield path
        return
    for each in sorted(path.rglob("*")):
        if each.is_file() and "__pycache__" not in each.parts:
            yield each


def say(text: str) -> None:
    """One line of progress."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
