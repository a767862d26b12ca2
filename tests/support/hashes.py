"""The Redis hash of a record, as `merge.lua` writes it."""

from collections.abc import Sequence
from typing import Final

from shared.postback.postback import NormalisedPostback
from shared.postback.stored import FORMATS, format_1, format_2

FIRST: Final = ord("0")


def as_hash(
    postbacks: Sequence[NormalisedPostback], received_at: int = 1, *, written: int = 2
) -> dict[bytes, bytes]:
    """The fields of postbacks that arrived at once.

    Args:
        received_at: microseconds since the Unix epoch.
        written: the number of their format.
    """
    fields: dict[bytes, bytes] = {}
    numbers: dict[bytes, int] = {}
    for each in postbacks:
        if FORMATS[written] is format_1:
            name, value = format_1(received_at, each)
        else:
            name, value, common = format_2(received_at, each)
            number = numbers.setdefault(common, len(numbers))
            fields[bytes([FIRST + number])] = common
            name = name[:-1] + bytes([name[-1] + number])
        fields[name] = value
    return fields
