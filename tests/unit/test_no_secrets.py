"""The tracked files contain no secrets: keys, tokens of well-known forms, passwords in URLs."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORMS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "an AWS key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[opsur]_[A-Za-z0-9]{36}|github_pat_\w{60,})",
    "a GitLab token": r"\bglpat-[\w-]{20,}",
    "a Slack token": r"\bxox[abeoprs]-[\w-]{10,}",
    "a Google key": r"\bAIza[\w-]{35}\b",
    "a JSON web token": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
    "a PyPI or npm token": r"\b(?:pypi-AgEI\w{20,}|npm_[A-Za-z0-9]{36})",
    "a hashed password": r"scrypt\.\d+\.\d+\.\d+\.[\w-]{20,}\.[\w-]{40,}",
    "a password in a URL": (
        r"\b[a-z][a-z0-9+]*://[^\s:/@'\"<>{}$]*:(?P<secret>[^\s:/@'\"<>{}$*]+)@[\w.\[]"
    ),
    "a secret that is set": (
        r"(?i)\b\w*(?:password|passwd|secret|token|api_?key)\w*[\"']?\s*[=:]\s*"
        r"[\"'](?P<secret>[A-Za-z0-9+/_.~-]{24,})[\"']"
    ),
}

HARMLESS = {"guest", "password", "secret", "secret-word", "hush", "hu#sh-hush", "…"}
"""Default passwords and placeholders."""


def found(text: str) -> list[str]:
    """The kinds and lines of possible secrets, without the secrets themselves."""
    return [
        f"{form} in line {text.count(chr(10), 0, match.start()) + 1}"
        for form, pattern in FORMS.items()
        for match in re.finditer(pattern, text)
        if match.groupdict().get("secret", "").lower() not in HARMLESS
    ]


def test_no_tracked_file_contains_a_secret() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30
    )
    if listed.returncode:
        pytest.skip("not a git checkout (a source archive): there is no list of files to look at")
    secrets = {
        name: what
        for name in listed.stdout.decode().split("\0")
        if name and (ROOT / name).is_file()
        if (what := found((ROOT / name).read_text(encoding="utf-8", errors="replace")))
    }
    assert not secrets


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "AKIA" + "A" * 16,
        "ghp_" + "a1" * 18,
        "eyJhbGciOiJIUzI1" + ".eyJzdWIiOiIxMjM0" + ".SflKxwRJSMeK",
        "amqp://mms:" + "c0rrect-h0rse" + "@rabbit.example/",
        "redis://:" + "c0rrect-h0rse" + "@10.0.0.1:6379/0",
        'MMS_TOKEN = "' + "a1b2" * 6 + '"',
        '{"api_key": "' + "a1b2" * 6 + '"}',
        "scrypt.14.8.1." + "a" * 22 + "." + "b" * 43,
    ],
)
def test_a_secret_is_found(text: str) -> None:
    assert found(f"one\n{text}\n")[0].endswith("in line 2")
    assert text not in str(found(text))


@pytest.mark.parametrize(
    "text",
    [
        "amqp://guest:guest@127.0.0.1:5672/",
        "redis+cluster://user:password@host:6379",
        "postgres://{user}:{password}@host",
        "http://127.0.0.1:8080/postbacks",
        'token = "<16 characters or more>"',
    ],
)
def test_a_harmless_text_is_not_found(text: str) -> None:
    assert not found(text)
