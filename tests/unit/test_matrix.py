"""The input and output of `make matrix`."""

import pytest

from tests import matrix

DEB822 = """Types: deb
# http://snapshot.example/archive
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
"""
SECURITY = "Types: deb\nURIs: http://mirror.example/debian-security\n"


@pytest.mark.parametrize(
    ("sources", "wanted"),
    [
        ([], []),
        ([SECURITY], []),
        ([SECURITY, DEB822], ["http://mirror.example/debian"]),
        (["deb http://mirror.example/debian bookworm main\n"], ["http://mirror.example/debian"]),
        (["deb [arch=amd64] http://a.example/debian/ sid main\n"], ["http://a.example/debian/"]),
        (["# deb http://mirror.example/debian bookworm main\n"], []),
    ],
)
def test_the_mirror_is_that_of_apt(sources: list[str], wanted: list[str]) -> None:
    assert matrix.mirror(sources) == wanted


def test_pip_uses_the_same_indexes_without_local_folders() -> None:
    listed = """:env:.find-links='/opt/wheels'
:env:.default-timeout='180'
global.index-url='https://index.example/simple'
global.extra-index-url='file:///opt/simple https://other.example/simple'
global.cert='/etc/ssl/certs/own.pem'
freeze.timeout='10'"""
    assert matrix.pip_settings(listed) == {
        "PIP_DEFAULT_TIMEOUT": "180",
        "PIP_INDEX_URL": "https://index.example/simple",
        "PIP_EXTRA_INDEX_URL": "https://other.example/simple",
    }


LOG = """
FAILED tests/unit/test_a.py::test_b - AssertionError
ERROR tests/unit/test_c.py
===== 1 failed, 12 passed, 1 skipped, 1 error in 71.25s (0:01:11) =====
"""


@pytest.mark.parametrize(
    ("status", "log", "wanted"),
    [
        (0, "=== 12 passed, 1 skipped in 9.01s ===\n", "12 passed, 1 skipped"),
        (2, LOG, "FAILED (1 failed, 12 passed, 1 skipped, 1 error)"),
        (2, "make: *** [Makefile:24: test] Error 1\n", "FAILED (no test ran to its end)"),
        (None, "tests/unit/test_a.py::test_b", "time limit reached"),
    ],
)
def test_a_result_is_described_in_words(status: int | None, log: str, wanted: str) -> None:
    assert matrix.outcome(status, log) == wanted


def test_failed_tests_are_listed() -> None:
    assert matrix.failures(LOG) == [
        "FAILED tests/unit/test_a.py::test_b - AssertionError",
        "ERROR tests/unit/test_c.py",
    ]


def test_the_table_is_aligned() -> None:
    row = matrix.Row(
        "debian13", "3.13.5", "4.0.5", "Redis 8.0.2", "3.14.4", "12 passed", passed=True
    )
    head, line, body = matrix.table([row])
    assert head.split("|")[1:4] == ["          ", " Python ", " RabbitMQ "]
    assert len(head) == len(line) == len(body)
    assert body.startswith("| debian13 | 3.13.5 | 4.0.5 ")
