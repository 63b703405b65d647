"""The registry's Ed25519 key: made once, kept beside the store, never sent."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from xpool_protocol.control.token import Verifier
from xpool_protocol.errors import UsageError


class SigningKey:
    """Signs lease tokens."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key in a file that only its owner may read.

        Raises:
            UsageError: missing, readable by others, or not an Ed25519 key.
        """
        try:
            mode = path.stat().st_mode
            pem = path.read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read the registry's key {path}: {error.strerror}"
            ) from error
        if stat.S_IMODE(mode) & 0o077:
            raise UsageError(
                f"the registry's key {path} can be read by others: close it with"
                f" chmod 600 {path}, or make a new pool if it may have been copied"
            )
        return cls.from_pem(pem, str(path))

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> SigningKey:
        """The key in PEM form.

        Raises:
            UsageError: it is no Ed25519 key; ``where`` says which.
        """
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except (ValueError, TypeError) as error:
            raise _unreadable(where) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise _unreadable(where)
        return cls(private)

    def pem(self) -> bytes:
        """The private key in PEM form: a secret."""
        return self._private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def save(self, path: Path) -> None:
        """Write the key, readable by its owner only, all of it or nothing.

        Raises:
            UsageError: the folder cannot be written.
        """
        pem = self.pem()
        draft = path.with_name(f"{path.name}.new")
        try:
            draft.unlink(missing_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(fd)
            draft.rename(path)
        except OSError as error:
            raise UsageError(
                f"cannot write the registry's key {path}: {error.strerror}"
            ) from error

    def sign(self, message: bytes) -> bytes:
        """The signature over ``message``, 64 bytes."""
        return self._private.sign(message)

    @property
    def public_key(self) -> bytes:
        """What nodes check tokens with: 32 raw bytes."""
        return self._private.public_key().public_bytes_raw()

    @property
    def door_key(self) -> bytes:
        """What the pool's workers vouch for their doors with: 32 bytes."""
        return hashlib.sha256(self.sign(b"xpool-door-key-1\n")).digest()


def verifier_from_public_key(public_key: bytes) -> Verifier:
    """A check for ``token.verify`` from a registry's 32 raw bytes."""
    public = Ed25519PublicKey.from_public_bytes(public_key)

    def verify(signature: bytes, message: bytes) -> None:
        try:
            public.verify(signature, message)
        except InvalidSignature as error:
            raise ValueError("the signature does not match") from error

    return verify


def _unreadable(where: str) -> UsageError:
    return UsageError(
        f"{where} is not an Ed25519 key in PEM form: restore it from a copy, or"
        " move it and the store away to begin a new pool"
    )
