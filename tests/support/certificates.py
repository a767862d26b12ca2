"""Certificates for tests, made with openssl: an authority and the certificates that it signs."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Signed(NamedTuple):
    """PEM files."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority that is trusted only where it is configured.

    Attributes:
        cert: PEM file of its certificate.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.cert = directory / "ca.pem"
        self._key = directory / "ca.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.cert),
            *("-days", "2", "-subj", "/CN=tests", "-addext", "basicConstraints=critical,CA:TRUE"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        )

    def sign(self, name: str, *, names: str = "IP:127.0.0.1,DNS:localhost") -> Signed:
        """A certificate for a server.

        Args:
            name: the name of its files.
            names: its subject alternative names in openssl's notation.
        """
        signed = Signed(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-keyout", signed.key, "-out", signed.cert),
            *("-CA", self.cert, "-CAkey", self._key, "-days", "2", "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName={names}", "-addext", "extendedKeyUsage=serverAuth"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
        return signed


_NEW_KEY = ("-newkey", "rsa:2048", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
