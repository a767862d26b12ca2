"""How the simulated provider sends: dialect, rate, resends, credentials."""

from typing import Annotated

import msgspec
from msgspec import Meta

from ingest.simulate.wording import MIXED


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to send.

    Attributes:
        dialect: one of `wording.DIALECTS`, or `mixed`.
        concurrency: POSTs in progress at once, each on its own connection.
        rate: POSTs a second; 0: as many as are answered.
        timeout: seconds that the provider waits for a response.
        resend_after: seconds from a failed attempt to the next one.
        resends: attempts after the first.
        duplicates: share of postbacks that are sent twice although the first was answered 200.
        passthrough: share of postbacks that are followed by one of another origin, as when SMS and
            inbound traffic of the same account use the same URL.
        shuffle: send in random order over the whole run, instead of message by message.
        deadline: seconds after which sending and resending stop; None: never.
        authorization: the header of that name; empty: none.
        tls_ca: PEM file of the authority that signs https:// servers; empty: the system's.
    """

    dialect: str = MIXED
    concurrency: Annotated[int, Meta(ge=1)] = 64
    rate: float = 0.0
    timeout: float = 10.0
    resend_after: float = 300.0
    resends: int = 5
    duplicates: float = 0.0
    passthrough: float = 0.0
    shuffle: bool = False
    deadline: float | None = None
    authorization: str = ""
    tls_ca: str = ""
