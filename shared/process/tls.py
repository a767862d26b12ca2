"""TLS of the ingress and towards servers: TLS 1.2 or newer, the standard library's ciphers."""

import ssl

from shared.errors import SettingsError


def server_context(cert: str, key: str) -> ssl.SSLContext | None:
    """The TLS context of a server; None if there is no certificate.

    Args:
        cert: PEM file of the certificate and its chain.
        key: PEM file of the private key; empty: it is in the other file.

    Raises:
        SettingsError: a file cannot be read or they do not belong together.
    """
    if not cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # Without this argument OpenSSL would ask for a password on the terminal and wait for ever.
        context.load_cert_chain(cert, key or None, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, OSError) else "not PEM"
        raise SettingsError(
            f"MMS_TLS_CERT {cert} and MMS_TLS_KEY {key} cannot be used ({reason}); they are PEM"
            " files, the key without a password and made for the certificate"
        ) from None
    return context


def client_context(ca: str) -> ssl.SSLContext:
    """The TLS context of a client, which verifies certificates and names.

    Args:
        ca: PEM file of the authorities that sign servers; empty: the system's.

    Raises:
        SettingsError: the file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or "not PEM"
        raise SettingsError(f"MMS_TLS_CA {ca} cannot be used ({reason})") from None
