"""A private Prometheus, with its data in a folder, that reads what `deploy/prometheus` says."""

import http.client
import json
import os
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from deploy.local.child import Child
from deploy.local.ports import HOST, free_port

CONFIGURATION: Final = Path(__file__).parents[1] / "prometheus"


class Prometheus(Child):
    """One Prometheus; needs Debian's package `prometheus`, but not its service.

    Args:
        directory: for its data, log and configuration: a copy of ours.
        targets: addresses by job, for the files in `targets/`.
        changes: texts of `prometheus.yml` and `rules.yml` to replace, such as an interval that is
            too long to wait for.
    """

    def __init__(
        self,
        directory: Path,
        targets: Mapping[str, Sequence[str]],
        *,
        changes: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{HOST}:{self.port}"
        self._directory = directory
        self._targets = targets
        self._changes = changes or {}
        super().__init__(
            "Prometheus",
            (
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address={HOST}:{self.port}",
                "--log.level=warn",
            ),
            log_path=directory / "prometheus.log",
            env=os.environ,
        )

    def prepare(self) -> None:
        shutil.copytree(CONFIGURATION, self._directory, dirs_exist_ok=True)
        for path in (self._directory / "prometheus.yml", self._directory / "rules.yml"):
            text = path.read_text()
            for old, new in self._changes.items():
                text = text.replace(old, new)
            path.write_text(text)
        for job, addresses in self._targets.items():
            path = self._directory / "targets" / f"{job}.yml"
            path.write_text(json.dumps([{"targets": list(addresses)}]))

    def ready(self) -> bool:
        return self._get("/-/ready")[0] == http.HTTPStatus.OK

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now.

        Raises:
            ValueError: Prometheus does not understand it; says why.
        """
        _, body = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        answer = json.loads(body)
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def firing(self) -> set[str]:
        """The names of the alerts that fire now."""
        alerts = json.loads(self._get("/api/v1/alerts")[1])["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()
