"""The tracked files use the field's terms instead of the words that they replaced."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REPLACED = {
    "outbox": r"[Uu]ntold",
    "result, publish, say": r"[Tt]old|[Tt]ells?|[Tt]elling|[Ff]ates?",
    "fast path": r"[Ee]xpress|[Ll]anes?",
    "slow path": r"[Uu]sual path",
    "accepts": r"RabbitMQ (?:can )?(?:never )?takes? (?:it|no|messages|publishes)",
    "normalised postback": r"[Ff]ilings?",
    "process": r"[Aa]bsorb(?!ed_total)\w*",
    "PublishRejectedError": r"NotTaken\w*",
    "PublishOutcomeUnknownError": r"FateUnknown\w*",
    "DeadlineExceededError": r"OverdueError",
    "access control, policy": r"[Gg]ates?|[Gg]uards?|[Aa]dmits",
    "notify": r"[Ww]ish(?:es)?",
    "supervisor": r"[Ff]leets?|[Kk]eepers?",
    "a noun that says what is limited": r"GRACE|FAREWELL|ENOUGH|AT_ONCE|KEEP",
    "(nothing: write the fact)": r"[Rr]iddles?",
    "requeue, in progress": r"(?:gives?|gave|given|giving) (?:\w+ )?back|in hand",
}
"""Regular expressions of the words, by the terms to use instead."""

OTHER_LETTER = r"(?<![Dd]ead )(?<![Dd]ead-)(?<!dead_)\b[Ll]etters?\b(?!s?_)"
"""A letter that is not a dead letter, such as the verdicts of the merge script were."""

PATTERNS = {
    term: re.compile(rf"(?<![A-Za-z])(?:{words})(?![A-Za-z])") for term, words in REPLACED.items()
}
"""Also inside names, whose words are separated by underscores."""

PATTERNS["verdict; or dead letter"] = re.compile(OTHER_LETTER)

EXCEPTIONS = {
    "tests/unit/test_words.py": "this list",
    "tests/bench/peers/node/package-lock.json": "npm writes it",
    "LICENSE": "the text of a licence is fixed",
}
NOT_TEXT = (".png", ".msgpack")

ALPHABET = re.compile(
    r"\.tell\(\)"  # the method of Python's files
    r"|\b(?:a|by) letters?\b|[Ll]etters? (?:a to|of the alphabet)|[Cc]apital letters?"
)
"""Uses of the same words with their ordinary meaning."""


def found(text: str) -> list[str]:
    """The replaced words in a text: line, word, and the term to use instead."""
    return [
        f"line {number}: {match[0]!r}; use: {term}"
        for number, line in enumerate(text.splitlines(), 1)
        for term, pattern in PATTERNS.items()
        for match in pattern.finditer(ALPHABET.sub("", line))
    ]


def test_no_tracked_file_has_a_replaced_word() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30
    )
    if listed.returncode:
        pytest.skip("not a git checkout (a source archive): there is no list of files to check")
    words = {
        name: lines
        for name in listed.stdout.decode().split("\0")
        if name not in EXCEPTIONS
        and not name.startswith("requirements")
        and not name.endswith(NOT_TEXT)
        and (ROOT / name).is_file()
        and (lines := found((ROOT / name).read_text(encoding="utf-8", errors="replace")))
    }
    assert words == {}


@pytest.mark.parametrize(
    "text",
    [
        "who is told of an event",
        "its fate is unknown",
        "class OverdueError(Exception):",
        "gives them back once",
        "what a worker has in hand",
        "absorb(window)",
        "letters = merge()",
        "def test_readiness_is_told_at_once",
        "requests on the usual path",
        "until RabbitMQ takes it",
    ],
)
def test_a_replaced_word_is_found(text: str) -> None:
    (line,) = found(f"first\n{text}\n")
    assert line.startswith("line 2: ")


@pytest.mark.parametrize(
    "text",
    [
        "mms_worker_absorbed_total",
        "dead letters, dead-letter, dead_letter, dead_letters",
        "log.tell()",
        "an expression, gateway, guarantee, intellect",
        "a capital letter",
    ],
)
def test_another_word_is_not_found(text: str) -> None:
    assert found(text) == []
