"""Passwords in the settings: hashed with scrypt, each with its own salt.

    scrypt.14.8.1.<salt>.<digest>        log2 of N, r, p; salt and digest in URL-safe Base64

The text has no character that is special in a shell, a compose file, a list separated by commas or
a TOML string.
"""

import base64
import binascii
import hashlib
import hmac
import os
from typing import Final

import msgspec

_LOG_N: Final = 14
_R: Final = 8
_P: Final = 1
_SALT: Final = 16
_DIGEST: Final = 32
_MAX_MEMORY: Final = 256 * 2**20


class Hashed(msgspec.Struct, frozen=True):
    """The hash of a password, with its parameters."""

    log_n: int
    r: int
    p: int
    salt: bytes
    digest: bytes

    def __repr__(self) -> str:
        return "Hashed(***)"

    def __str__(self) -> str:
        parts = ("scrypt", str(self.log_n), str(self.r), str(self.p))
        return ".".join((*parts, _encoded(self.salt), _encoded(self.digest)))

    def matches(self, password: bytes) -> bool:
        """Whether this is the password; takes about 50 ms and 16 MiB, and releases the GIL."""
        digest = _scrypt(password, self.salt, self.log_n, self.r, self.p)
        return hmac.compare_digest(digest, self.digest)


def hashed(password: bytes) -> Hashed:
    """Hash a password with a new salt."""
    salt = os.urandom(_SALT)
    return Hashed(_LOG_N, _R, _P, salt, _scrypt(password, salt, _LOG_N, _R, _P))


def parse(text: str) -> Hashed:
    """Parse the text that `str(Hashed)` returns.

    Raises:
        ValueError: the text is not valid, or needs over 256 MiB; the error does not repeat it.
    """
    scheme, *rest = text.split(".")
    try:
        log_n, r, p, salt, digest = rest
        parsed = Hashed(int(log_n), int(r), int(p), _decoded(salt), _decoded(digest))
    except (ValueError, binascii.Error):
        scheme = ""
    if (
        scheme != "scrypt"
        or len(parsed.digest) != _DIGEST
        or len(parsed.salt) < _SALT
        or min(parsed.log_n, parsed.r, parsed.p) < 1
        or max(parsed.log_n, parsed.r, parsed.p) > 20  # noqa: PLR2004 (before 2 is raised to it)
        or _memory(parsed.log_n, parsed.r, parsed.p) > _MAX_MEMORY
    ):
        raise ValueError("not a hashed password") from None
    return parsed


def _scrypt(password: bytes, salt: bytes, log_n: int, r: int, p: int) -> bytes:
    return hashlib.scrypt(
        password,
        salt=salt,
        n=(1 << log_n),
        r=r,
        p=p,
        dklen=_DIGEST,
        maxmem=_memory(log_n, r, p) + 2**20,
    )


def _memory(log_n: int, r: int, p: int) -> int:
    return 128 * r * ((1 << log_n) + p)


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
