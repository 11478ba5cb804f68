"""Signing a certificate's content with a key of one's own (Ed25519), and verifying that."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from unlearnbench.errors import InvalidFileError, UnlearnBenchError, unreadable

ALGORITHM = "Ed25519"
MAKE_A_KEY = (
    "  Make one: openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out key.pub"
)


def signed_bytes(values: dict[str, Any]) -> bytes:
    """Return the bytes that are signed and hashed: the content without its signature and its hash, as plain JSON."""
    rest = {key: value for key, value in values.items() if key not in ("signature", "sha256")}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def content_digest(values: dict[str, Any]) -> str:
    """Return the SHA-256 of a certificate's content."""
    return hashlib.sha256(signed_bytes(values)).hexdigest()


def sign(values: dict[str, Any], key: Path) -> dict[str, str]:
    """Return the signature of a certificate's content.

    Args:
        values: The content.
        key: Private key of Ed25519 in PEM.

    Raises:
        InvalidFileError: If the key cannot be read, or is of another kind.
        UnlearnBenchError: If the library `cryptography` is not installed.
    """
    serialization, ed25519 = _library()
    try:
        private = serialization.load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidFileError(f"{key}: not a private key in PEM without a password\n{MAKE_A_KEY}") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise InvalidFileError(f"{key}: a key of another kind than {ALGORITHM}\n{MAKE_A_KEY}")
    public = private.public_key().public_bytes_raw()
    made = private.sign(signed_bytes(values))
    return {
        "algorithm": ALGORITHM,
        "public_key": base64.b64encode(public).decode(),
        "value": base64.b64encode(made).decode(),
    }


def verify_signature(values: dict[str, Any], public_key: Path | None) -> str:
    """Return the fingerprint of the key that a certificate's content is signed with.

    Args:
        values: The content with its signature.
        public_key: Public key in PEM that it must be; None takes the one that the certificate names.

    Raises:
        InvalidFileError: If it is not signed, not by this key, or changed afterwards.
        UnlearnBenchError: If the library `cryptography` is not installed.
    """
    signature = values.get("signature")
    if not isinstance(signature, dict):
        raise InvalidFileError("it is not signed")
    serialization, ed25519 = _library()
    from cryptography.exceptions import InvalidSignature

    try:
        raw = base64.b64decode(signature["public_key"], validate=True)
        made = base64.b64decode(signature["value"], validate=True)
        public = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidFileError("its signature is not one of Ed25519") from error
    if public_key is not None:
        try:
            wanted = serialization.load_pem_public_key(_read(public_key))
        except (ValueError, TypeError) as error:
            raise InvalidFileError(f"{public_key}: not a public key in PEM") from error
        if not isinstance(wanted, ed25519.Ed25519PublicKey) or wanted.public_bytes_raw() != raw:
            raise InvalidFileError(f"it is signed with another key than {public_key}")
    try:
        public.verify(made, signed_bytes(values))
    except InvalidSignature as error:
        raise InvalidFileError("its content was changed after it was signed") from error
    return fingerprint(signature)


def fingerprint(signature: dict[str, str]) -> str:
    """Return the first digits of the hash of the public key, by which people compare keys."""
    return hashlib.sha256(base64.b64decode(signature["public_key"])).hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise UnlearnBenchError(
            "signatures need the library cryptography\n  pip install 'unlearnbench[sign]'"
        ) from error
    return serialization, ed25519
