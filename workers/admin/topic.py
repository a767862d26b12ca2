"""Topic matching as RabbitMQ does it, for events that are read from the log without a binding."""

from collections.abc import Sequence


def matches(pattern: str, routing_key: str) -> bool:
    """Whether a topic exchange would route this key to a binding with this pattern.

    Words are separated by dots; `*` stands for exactly one word, `#` for none or more. The empty
    key has no words, and a pattern word that only contains a `*` or `#` is literal, as in RabbitMQ.
    """
    return _matches(_words(pattern), _words(routing_key))


def _words(text: str) -> list[str]:
    return text.split(".") if text else []


def _matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Dynamic programming: `reached[n]` says whether the pattern so far matches `words[:n]`."""
    reached = [True] + [False] * len(words)
    for wanted in pattern:
        if wanted == "#":
            first = reached.index(True) if True in reached else len(reached)
            reached = [at >= first for at in range(len(reached))]
        else:
            reached = [
                False,
                *(
                    before and wanted in {"*", word}
                    for before, word in zip(reached, words, strict=False)
                ),
            ]
    return reached[-1]
