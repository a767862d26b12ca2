"""No telemetry: the code has no address of a server on the internet."""

import ast
import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for name in ("ingest", "workers", "shared") for path in ROOT.glob(f"{name}/**/*.py")
)

URL = re.compile(r"\b[a-z][a-z0-9+]*://(?:[^/@\s]*@)?\[?([\w.:-]+)")
NAME = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*\.(?:com|net|org|io|dev|cloud|app|ai|co)\b")

NOT_CONNECTED = {"www.w3.org"}
"""Names of XML namespaces in simulated postbacks."""


def addresses(source: str) -> Iterator[str]:
    """The hosts and domains in all strings of a module but its docstrings."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in docstrings:
            text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
            if isinstance(text, str):
                yield from URL.findall(text)
                yield from NAME.findall(text)


def is_remote(address: str) -> bool:
    host = address.partition(":")[0].strip(".")
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return "." in host and not host.endswith(".example") and host not in NOT_CONNECTED


def test_an_address_is_found() -> None:
    source = 'x = f"https://stats.host.test/{1}"\ny = b"amqp://192.0.2.1:5672/"\nz = "sentry.io"'
    found = {each for each in addresses(source) if is_remote(each)}
    assert found == {"stats.host.test", "192.0.2.1:5672", "sentry.io"}


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_no_string_is_an_address_on_the_internet(path: Path) -> None:
    assert [each for each in addresses(path.read_text()) if is_remote(each)] == []
