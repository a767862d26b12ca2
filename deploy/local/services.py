"""`mms-ingest` and `mms-worker` as children: ready when their `/readyz` answers 200."""

import http.client
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.local.child import Child
from deploy.local.ports import HOST


def command(name: str) -> str:
    """The path of one of our commands, in the folder of the Python that runs this."""
    return str(Path(sys.executable).with_name(name))


class Service(Child):
    """`mms-ingest` or `mms-worker`.

    Args:
        settings: its `MMS_*` environment variables, in addition to those of the caller.
        admin_port: its admin port.
    """

    def __init__(
        self,
        name: str,
        *,
        settings: Mapping[str, str],
        admin_port: int,
        log_path: Path,
        arguments: Sequence[str] = (),
    ) -> None:
        self.admin_port = admin_port
        super().__init__(
            name,
            (command(name), *arguments),
            log_path=log_path,
            env=os.environ | settings | {"MMS_ADMIN_PORT": str(admin_port)},
        )

    def ready(self) -> bool:
        return self.ask("/readyz")[0] == http.HTTPStatus.OK

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of a response of its admin port; status 0 if there is none."""
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=2)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()
