"""Requests to the admin port of a process."""

import urllib.request


def is_healthy(admin_port: int | None) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
