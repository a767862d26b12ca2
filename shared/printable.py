"""Text from outside, made safe for a terminal and a log."""


def printable(text: str, keep: str = "") -> str:
    r"""Replace each character that cannot be printed with an escape such as `\x1b`.

    Without `keep` the result is one line, and it cannot control a terminal.

    Args:
        keep: characters to leave as they are, such as new lines.
    """
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode()
        for each in text
    )
