"""A private Prometheus with the configuration in `deploy/prometheus` and its data in a folder."""

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
    """A Prometheus; needs Debian's package `prometheus`, but not its service.

    Args:
        directory: for its data, its log and a copy of the configuration.
        targets: addresses by job, for the files in `targets/`.
        changes: texts of `prometheus.yml` and `rules.yml` to replace, such as a long interval in
            a test.
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
        """The samples of an expression now.

        Raises:
            ValueError: Prometheus cannot evaluate it; the error says why.
        """
        _, body = self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        response = json.loads(body)
        if response["status"] != "success":
            raise ValueError(f"{expression}: {response['error']}")
        samples: list[dict[str, Any]] = response["data"]["result"]
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
