"""The Dockerfile and the compose file, as far as they can be tested without a Docker daemon."""

import functools
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import yaml

from deploy.local import servers
from deploy.local.services import command

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_hadolint() -> None:
    assert run(command("hadolint"), "deploy/Dockerfile") == ""


def test_the_wheel_of_the_image_is_complete(tmp_path: Path) -> None:
    """The last build step of the Dockerfile makes it from the folders that it copies."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path))
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"workers/merge.lua", "workers/index.lua", "ingest/main.py"} <= set(names)
    copied = (DEPLOY / "Dockerfile").read_text()
    for folder in {name.partition("/")[0] for name in names if "dist-info" not in name}:
        assert f"COPY {folder} {folder}" in copied
        assert f"!{folder}\n" in (DEPLOY / "Dockerfile.dockerignore").read_text()


@functools.cache
def compose() -> tuple[str, ...]:
    """Compose is a plugin of Docker, or (Debian) a command of its own; neither needs a daemon."""
    for words in (("docker", "compose"), ("docker-compose",)):
        try:
            done = subprocess.run((*words, "version"), capture_output=True, check=False)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return words
    raise AssertionError("neither `docker compose` nor `docker-compose` runs here")


def test_compose_config() -> None:
    words = (*compose(), "-f", "deploy/compose.yaml", "config", "--services")
    services = run(*words, RABBITMQ_PASSWORD="a", GRAFANA_PASSWORD="b").split()
    assert set(services) == {
        *("ingress-1", "ingress-2", "worker", "proxy"),
        *("rabbitmq", "redis", "prometheus", "alertmanager", "grafana"),
    }


def test_compose_refuses_to_start_without_passwords() -> None:
    done = subprocess.run(
        (*compose(), "-f", "deploy/compose.yaml", "config"),
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if "PASSWORD" not in key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "see the top of compose.yaml" in done.stderr


def test_redis_has_the_same_settings_everywhere() -> None:
    """Those of `make run`, which the benchmark and the plan of its memory are made with."""
    pairs = iter(servers.REDIS_SETTINGS)
    wanted = {name.removeprefix("--"): value for name, value in zip(pairs, pairs, strict=True)}
    compose_file = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    words = iter(compose_file["services"]["redis"]["command"][1:])
    in_compose = {name.removeprefix("--"): value for name, value in zip(words, words, strict=True)}
    assert in_compose == wanted | {"maxmemory-policy": "noeviction"}
    manual = (DEPLOY / "docs" / "deployment.md").read_text()
    for name, value in in_compose.items():
        assert f"'{name} {value}'" in manual or name == "save"


def test_every_file_that_compose_mounts_exists() -> None:
    for name in (
        *("haproxy/haproxy.cfg", "prometheus", "grafana", "grafana/provisioning"),
        *("rabbitmq/enabled_plugins", "prometheus/alertmanager.yml"),
    ):
        assert f"./{name}:" in (DEPLOY / "compose.yaml").read_text()
        assert (DEPLOY / name).exists()
