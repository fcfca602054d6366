"""Whom a target's connections trust, and what they show of themselves."""

import ssl

from loadtest.types import Target


def context(target: Target) -> ssl.SSLContext:
    """Raises OSError (ssl.SSLError is one) where a file of the target's cannot be used."""
    made = ssl.create_default_context()
    if target.ca_file:
        made.load_verify_locations(cafile=target.ca_file)
    if target.client_cert:
        made.load_cert_chain(target.client_cert, target.client_key, password=_no_passphrase)
    made.set_alpn_protocols(["http/1.1"])
    return made


def _no_passphrase() -> str:
    """Asked for where a key has one. Without this, OpenSSL would ask on the terminal."""
    return ""
