"""The lifecycles of messages and their frequencies: the table of the simulated traffic.

Each step has the outcome that it leads to, and in each track the more decisive steps come later.
So the outcome of a message follows from this table alone: it is that of the last step in the table
that arrived. This module does not use the codes or the record of `shared.postback`, because it is
used to check them.
"""

from typing import Final, NamedTuple


class Step(NamedTuple):
    """One postback of a lifecycle, before it has ids, numbers and times.

    Attributes:
        track: `message`, `discovery` or `template`.
        outcome: the outcome of the track when this step is the most decisive one that arrived.
        after: seconds after the message's beginning; the provider sends in this order.
        status: the status in its one-word form, None where the provider sends none.
        id_field: the field that holds the id of the record.
        receipt: whether it is a handset's receipt and so contains the handset.
        timed: whether it has a timestamp; error postbacks often have none.
    """

    track: str
    outcome: str
    code: str
    after: float
    status: str | None = None
    details: str | None = None
    sent_as: str | None = "MMS"
    id_field: str = "tracking-id"
    receipt: bool = False
    timed: bool = True

    @property
    def terminal(self) -> bool:
        return self.outcome not in {"accepted", "sent", "deferred"}


class Lifecycle(NamedTuple):
    """All postbacks of a message.

    Attributes:
        weight: how many of all messages have this lifecycle, relative to the other weights.
        steps: in each track in the order of rank, which is not always the order of time.
    """

    name: str
    weight: float
    steps: tuple[Step, ...]


_ACCEPTED: Final = Step("message", "accepted", "N013", 0.0, details="Transcoded")
_SENT: Final = Step("message", "sent", "N101", 2.0, "Sent", "MMS sent to carrier")
_SENT_SMS: Final = _SENT._replace(sent_as="SMS", details="SMS with link sent to carrier")
_UPDATE: Final = Step("message", "delivered", "N102", 60.0, receipt=True)
_DELIVERED: Final = _UPDATE._replace(status="Delivered", details="Retrieved by handset")
_EXPIRED: Final = _UPDATE._replace(outcome="expired", status="Expired", receipt=False)
_REJECTED: Final = _UPDATE._replace(outcome="rejected", status="Rejected", receipt=False)
_UNSUPPORTED: Final = _EXPIRED._replace(outcome="unsupported", status="Not Supported")
_UNRECOGNISED: Final = _EXPIRED._replace(outcome="unrecognised", status="Unrecognised")
_RETRIEVED: Final = _DELIVERED._replace(status="Retrieved")
_UNREACHABLE: Final = _EXPIRED._replace(outcome="unreachable", status="Unreachable")
_INDETERMINATE: Final = _EXPIRED._replace(outcome="indeterminate", status="Indeterminate")
_DEFERRED: Final = _EXPIRED._replace(outcome="deferred", status="Deferred", after=20.0)
_UNKNOWN_STATUS: Final = _EXPIRED._replace(outcome="sent", status="Held by the carrier", after=20.0)
_EXPIRY: Final = Step("message", "expired", "N103", 600.0, "Expired", "Not retrieved in time")
_FAILED: Final = Step("message", "failed", "E101", 4.0, "Failed", "Carrier refused", timed=False)
_UPDATE_FAILED: Final = Step("message", "failed", "E102", 300.0, "Failed", "Error <MM7 & 4000>")
_FALLBACK: Final = Step("message", "delivered", "N202", 30.0, "Delivered", sent_as="SMS")
_FALLBACK_FAILED: Final = Step("message", "failed", "E202", 30.0, sent_as="SMS", timed=False)
_ASKED: Final = Step("discovery", "sent", "N501", -9.0, "Sent", sent_as="SMS")
_FOUND: Final = Step("discovery", "delivered", "N502", -5.0, "Delivered", receipt=True)
_NOT_FOUND: Final = Step("discovery", "failed", "E501", -5.0, "Failed", "No answer", timed=False)
_READY: Final = Step("template", "ready", "N003", 5.0, sent_as=None, id_field="mms-id")
_CORRUPT: Final = Step(
    "template",
    "failed",
    "E002",
    6.0,
    details="Corrupt",
    sent_as=None,
    id_field="mms-id",
    timed=False,
)

LIFECYCLES: Final = (
    Lifecycle("delivered", 47, (_SENT, _DELIVERED)),
    Lifecycle("retrieved", 2, (_SENT, _RETRIEVED)),
    Lifecycle("deferred, then delivered", 1, (_SENT, _DEFERRED, _DELIVERED)),
    Lifecycle("deferred", 0.5, (_SENT, _DEFERRED)),
    Lifecycle("unreachable", 0.5, (_SENT, _UNREACHABLE)),
    Lifecycle("indeterminate", 0.5, (_SENT, _INDETERMINATE)),
    # A status text that is in no table is not a delivery.
    Lifecycle("unknown status", 0.5, (_SENT, _UNKNOWN_STATUS)),
    Lifecycle("accepted first", 5, (_ACCEPTED, _SENT, _DELIVERED)),
    Lifecycle("receipt without status", 4, (_SENT, _UPDATE)),
    Lifecycle("receipt only", 2, (_DELIVERED,)),
    Lifecycle("no receipt", 10, (_SENT,)),
    Lifecycle("expired", 3, (_SENT, _EXPIRED)),
    Lifecycle("expired by us", 2, (_SENT, _EXPIRY)),
    Lifecycle("rejected", 1.5, (_SENT, _REJECTED)),
    Lifecycle("rejected with an error", 0.5, (_SENT, _REJECTED._replace(code="E102"))),
    Lifecycle("failed", 1.5, (_FAILED,)),
    Lifecycle("failed after sending", 1, (_SENT, _UPDATE_FAILED)),
    Lifecycle("failed without status", 0.5, (_SENT, _UPDATE_FAILED._replace(status=None))),
    Lifecycle("unknown error", 0.5, (_FAILED._replace(code="E999", status=None),)),
    Lifecycle("bad content", 0.5, (_ACCEPTED, _FAILED._replace(code="E011", status=None))),
    Lifecycle("bad number", 0.5, (_FAILED._replace(code="E012"),)),
    Lifecycle("bad sender", 0.5, (_FAILED._replace(code="E013", timed=True),)),
    Lifecycle("unsupported", 1, (_SENT, _UNSUPPORTED)),
    Lifecycle("unrecognised", 1, (_SENT, _UNRECOGNISED)),
    Lifecycle("fallback", 3, (_SENT_SMS, _FALLBACK)),
    Lifecycle("fallback without status", 0.5, (_SENT_SMS, _FALLBACK._replace(status=None))),
    Lifecycle("fallback expired", 0.5, (_FALLBACK._replace(outcome="expired", status="Expired"),)),
    Lifecycle("fallback failed", 0.5, (_SENT_SMS, _FALLBACK_FAILED)),
    Lifecycle("discovered", 3, (_ASKED, _FOUND, _SENT, _DELIVERED)),
    Lifecycle(
        "discovered by an unknown handset",
        0.5,
        (
            _ASKED,
            _FOUND._replace(outcome="unrecognised", status="Unrecognised"),
            _SENT_SMS,
            _FALLBACK,
        ),
    ),
    Lifecycle("not discovered", 0.5, (_ASKED, _NOT_FOUND, _SENT_SMS, _FALLBACK)),
    Lifecycle("discovery unclear", 0.5, (_NOT_FOUND._replace(code="E502", status=None), _SENT)),
    # The handset was off too long: the carrier gives up, and then the message arrives.
    Lifecycle("corrected", 1.5, (_SENT, _EXPIRED._replace(after=40.0), _DELIVERED)),
    # A delivery outranks a failure, although the failure comes last.
    Lifecycle("contradicted", 0.5, (_SENT, _UPDATE_FAILED, _DELIVERED)),
    # Among failures the latest counts, and one without a timestamp is the earliest.
    Lifecycle("failed twice", 0.5, (_SENT, _REJECTED, _EXPIRY)),
    Lifecycle("failed, then expired", 0.5, (_FAILED, _EXPIRY)),
    Lifecycle("template", 1, (_READY,)),
    Lifecycle("template in audio-name", 0.5, (_READY._replace(id_field="audio-name"),)),
    Lifecycle("template corrupt", 0.5, (_CORRUPT,)),
    Lifecycle("template ready, then corrupt", 0.25, (_READY, _CORRUPT._replace(code="E004"))),
    Lifecycle("content corrupt", 0.25, (_CORRUPT._replace(code="E003", id_field="video-name"),)),
)
"""About seven messages in ten are delivered, and one in ten never gets a receipt."""
