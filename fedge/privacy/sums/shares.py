"""Additive shares: two vectors that are each as good as chance, and add up to a third modulo 2**64.

One is the coordinator's, as it is. The other is the helper's: it travels in the same message, sealed by the helper's
key (X25519, HKDF-SHA256, AES-256-GCM), so that both arrive or none does. All chance is the operating system's.
"""

import os

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedge.privacy.sums.layout import Vector

KEY_BYTES = 32  # of a public key
_WORD = np.dtype("<u8")
_NONCE = bytes(12)  # each key seals one message
_TAG_BYTES = 16


def split(vector: Vector) -> tuple[Vector, Vector]:
    """Two shares of it: the second is chance alone, and so is the first to whoever lacks the second."""
    second = np.frombuffer(os.urandom(_WORD.itemsize * len(vector)), dtype=_WORD).astype(np.uint64)
    return vector - second, second


def packed(vector: Vector) -> bytes:
    """Eight bytes an entry, whatever they hold."""
    return vector.astype(_WORD).tobytes()


def unpacked(raw: bytes, length: int) -> Vector | None:
    """The vector in `raw`; None where it is not of `length` entries."""
    if len(raw) != _WORD.itemsize * length:
        return None
    return np.frombuffer(raw, dtype=_WORD).astype(np.uint64)


def sealed_bytes(length: int) -> int:
    """How long a sealed share of `length` entries is."""
    return KEY_BYTES + _WORD.itemsize * length + _TAG_BYTES


def place_of(round: int, client: int) -> bytes:
    """What a sealed share is bound to: it opens as that client's of that round, and as nothing else."""
    return f"fedge share, round {round}, client {client}".encode()


def new_key() -> X25519PrivateKey:
    """The helper's own, which never leaves its process."""
    return X25519PrivateKey.generate()


def public_bytes(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def seal(share: Vector, helper: bytes, place: bytes) -> bytes:
    """Readable with the private key to `helper` alone. ValueError where that is no key."""
    own = X25519PrivateKey.generate()
    secret = own.exchange(X25519PublicKey.from_public_bytes(helper))
    return public_bytes(own) + AESGCM(_key(secret, public_bytes(own), helper)).encrypt(
        _NONCE, packed(share), place
    )


def open_sealed(sealed: bytes, key: X25519PrivateKey, place: bytes, length: int) -> Vector | None:
    """The share; None where it is not sealed for this key and place, or is of another length."""
    if len(sealed) != sealed_bytes(length):
        return None
    sender = sealed[:KEY_BYTES]
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(sender))
        raw = AESGCM(_key(secret, sender, public_bytes(key))).decrypt(_NONCE, sealed[KEY_BYTES:], place)
    except (InvalidTag, ValueError):
        return None
    return unpacked(raw, length)


def _key(secret: bytes, sender: bytes, helper: bytes) -> bytes:
    return HKDF(SHA256(), length=32, salt=None, info=b"fedge share" + sender + helper).derive(secret)
