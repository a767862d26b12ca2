"""The contract's tables, written a second time, so that an error in the code's tables is found."""

from typing import Final

CODES: Final[dict[str, tuple[str, str]]] = {
    "N013": ("message", "accepted"),
    "N101": ("message", "sent"),
    "N102": ("message", "delivered"),
    "N202": ("message", "delivered"),
    "N103": ("message", "expired"),
    "E101": ("message", "failed"),
    "E999": ("message", "failed"),
    "E011": ("message", "failed"),
    "E012": ("message", "failed"),
    "E013": ("message", "failed"),
    "E102": ("message", "failed"),
    "E202": ("message", "failed"),
    "N501": ("discovery", "sent"),
    "N502": ("discovery", "delivered"),
    "E501": ("discovery", "failed"),
    "E502": ("discovery", "failed"),
    "N003": ("template", "ready"),
    "E002": ("template", "failed"),
    "E003": ("template", "failed"),
    "E004": ("template", "failed"),
}
"""Each code's track and default outcome."""

REFINED: Final = {"N102", "N202", "E102", "E202", "N502", "E502"}
"""The codes whose outcome the status text decides."""

STATUSES: Final[dict[str, str]] = {
    "Message Sent": "sent",
    "Message Failed": "failed",
    "Message Sent/Delivered": "delivered",
    "Message Sent/Expired": "expired",
    "Message Sent/Rejected": "rejected",
    "Message Sent/Failed": "failed",
    "Message Sent/Not Supported": "unsupported",
    "Message Sent/NotSupported": "unsupported",
    "Message Retrieved": "delivered",
    "Message Deferred": "deferred",
    "Sent": "sent",
    "Delivered": "delivered",
    "Retrieved": "delivered",
    "Success": "delivered",
    "Expired": "expired",
    "Rejected": "rejected",
    "Failed": "failed",
    "Unrecognised": "unrecognised",
    "Unrecognized": "unrecognised",
    "Unreachable": "unreachable",
    "Indeterminate": "indeterminate",
    "Deferred": "deferred",
    "Forwarded": "sent",
}
"""The outcome of each status text, in both wordings."""

WORDINGS: Final = {
    "Message Sent": "Sent",
    "Message Failed": "Failed",
    "Message Sent/Delivered": "Delivered",
    "Message Sent/Expired": "Expired",
    "Message Sent/Rejected": "Rejected",
    "Message Sent/Failed": "Failed",
    "Message Sent/Unrecognised": "Unrecognized",
    "Message Deferred": "Deferred",
    "Message Sent/Indeterminate": "indeterminate",
}
"""The wording of a status in XML and in JSON."""

NOT_TERMINAL: Final = {"accepted", "sent", "deferred"}

FIELDS: Final = [
    "origin",
    "code",
    "sent-as",
    "status",
    "status-details",
    "mms-id",
    "from",
    "to",
    "tracking-id",
    "operator-id",
    "operator-name",
    "timestamp",
    "handset",
    "client-reference",
    "campaign-ref",
    "aggregator-id",
    "audio-name",
    "video-name",
    "image-name",
    "from-mask",
    "os",
]

LEGACY: Final = {name: name.replace("-", "").upper() for name in FIELDS} | {
    "operator-id": "SPID",
    "from-mask": "FROM_MASK",
}
"""Each field's name in legacy XML."""


def expected_outcome(code: str, status: str | None) -> str:
    """The outcome of a code and a status text by the contract."""
    _, default = CODES[code]
    if code not in REFINED or not status:
        return default
    return STATUSES.get(status) or ("sent" if code.startswith("N") else "failed")


def phase(track: str, outcome: str) -> int:
    """The position of an outcome in the order of ranks, from 0."""
    if track == "template":
        return ["ready", "failed"].index(outcome)
    order = {"accepted": 0, "sent": 1, "deferred": 1, "delivered": 3}
    return order.get(outcome, 2)
