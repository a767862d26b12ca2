"""The catalogue of errors: what went wrong, and what to do.

The docstring of a class is the message of each instance that has no message of its own.
"""

from collections.abc import Mapping

from shared.printable import printable


class PostbacksError(Exception):
    """Something went wrong in mms-postbacks."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class UndecodableError(PostbacksError):
    """This body is no postback that this release understands; it becomes a dead letter.

    Attributes:
        reason: a `shared.postback.dead_letter.Reason`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ComponentEndedError(PostbacksError):
    """A component of this process ended unexpectedly; start the process again and see its log."""


class OtherOriginError(PostbacksError):
    """This postback's origin is not MMS_MT; it is passed on as an event, see `passthrough`.

    Attributes:
        fields: as `dialects.parse` returned them.
    """

    def __init__(self, fields: Mapping[str, object]) -> None:
        super().__init__("its origin is not MMS_MT; it is passed on as an event")
        self.fields = fields


class SettingsError(PostbacksError):
    """A setting has a value that cannot be used; see `--help` for what each one takes.

    The message may repeat a name or a path from outside. Characters that cannot be printed become
    escapes, so the message is one line and cannot control a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class StartError(PostbacksError):
    """A process could not be started; see its log."""


class UnsupportedRedisError(SettingsError):
    """The server that MMS_REDIS_URL names is too old; Redis 7 or newer, or Valkey 8, is needed."""


class TopologyConflictError(PostbacksError):
    """A queue or exchange in RabbitMQ differs from what this release declares."""


class DeadLettersInUseError(PostbacksError):
    """Another mms-admin reads mms.dead; wait until it finishes, or end it."""


class UpgradeError(PostbacksError):
    """The topology could not be upgraded; nothing is lost; run the upgrade again."""


class PublishRejectedError(PostbacksError):
    """RabbitMQ rejected the message, or there is no connection; publish the message again later."""


class PublishOutcomeUnknownError(PostbacksError):
    """RabbitMQ may or may not have the message: no confirm came; publish the message again."""


class UnpublishableError(PostbacksError):
    """The message can never be published as it is: it cannot be encoded, or it is too large."""


class BrokerUnavailableError(PostbacksError):
    """RabbitMQ cannot be reached; check MMS_AMQP_URL and that the server runs."""


class NotDeclaredError(BrokerUnavailableError):
    """RabbitMQ has no such queue; start an mms-ingest or mms-worker, which declares it."""


class UnreadableRecordError(PostbacksError):
    """A stored record has an entry that this release cannot read."""


class StateUnavailableError(PostbacksError):
    """Redis cannot take writes now; check MMS_REDIS_URL and that the server runs."""


class OverloadedError(PostbacksError):
    """More postbacks wait for a durable response than MMS_MAX_WAITING allows."""


class BodyTooLargeError(PostbacksError):
    """The body is larger than MMS_MAX_BODY, compressed or decompressed."""


class BodyIncompleteError(PostbacksError):
    """The body is incomplete, or its chunks are not valid HTTP."""


class UnknownCodingError(PostbacksError):
    """The body's Content-Encoding is none of gzip, deflate and identity."""


class BrokenCodingError(PostbacksError):
    """The body does not match its Content-Encoding, or is incomplete."""


class DeadlineExceededError(PostbacksError):
    """No durable response came in time; send the postback again."""


class SpoolUnavailableError(PostbacksError):
    """The spool cannot store this batch; see MMS_SPOOL_PATH and MMS_SPOOL_MAX_BYTES."""


class UntrustedServerError(PostbacksError):
    """A server's certificate is not trusted; name its authority with MMS_TLS_CA."""

    def __init__(self, server: str) -> None:
        super().__init__(f"{type(self).__doc__} ({server})")
