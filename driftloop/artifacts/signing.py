"""Ed25519 keys and signatures of published bundles: trainer signs, whoever loads verifies."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from driftloop.artifacts.errors import ArtifactError
from driftloop.artifacts.store import ArtifactStore

SIGNING_KEY_PATH = "keys/signing.key"
VERIFY_KEY_PATH = "keys/verify.pub"
_KEY_BYTES_MAX = 4_096


class KeyUnusable(ArtifactError):
    """A key file holds no Ed25519 key: restore it, or remove both so that trainer makes new ones."""


class VerifyKey:
    """The public half: says whether bytes were signed by the other half."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key

    def verifies(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's of exactly `data`."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> bytes:
        """The key as PEM."""
        return self._key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class SigningKey:
    """The private half; never logged, and written only where its owner alone can read."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @staticmethod
    def generate() -> SigningKey:
        """A new key from the operating system's randomness."""
        return SigningKey(Ed25519PrivateKey.generate())

    @property
    def verify_key(self) -> VerifyKey:
        """The public half."""
        return VerifyKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """The 64 bytes of the signature."""
        return self._key.sign(data)

    def to_pem(self) -> bytes:
        """The key as unencrypted PEM: keep it private."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def ensure_keys(store: ArtifactStore) -> SigningKey:
    """Trainer's signing key; made, with its public half, where there is none. KeyUnusable if the file is no key.

    The public half is written again from the private one, so that a crash between the two writes heals.
    """
    if store.exists(SIGNING_KEY_PATH):
        pem = store.get(SIGNING_KEY_PATH, _KEY_BYTES_MAX)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except ValueError as error:
            raise KeyUnusable(f"{SIGNING_KEY_PATH}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(f"{SIGNING_KEY_PATH} holds another kind of key")
        signing_key = SigningKey(key)
    else:
        signing_key = SigningKey.generate()
        store.put(SIGNING_KEY_PATH, signing_key.to_pem(), private=True)
    public = signing_key.verify_key.to_pem()
    if not store.exists(VERIFY_KEY_PATH) or store.get(VERIFY_KEY_PATH, _KEY_BYTES_MAX) != public:
        store.put(VERIFY_KEY_PATH, public)
    return signing_key


def load_verify_key(store: ArtifactStore) -> VerifyKey:
    """The public key that bundles are verified with; ArtifactNotFound before trainer has made one, KeyUnusable."""
    try:
        key = serialization.load_pem_public_key(store.get(VERIFY_KEY_PATH, _KEY_BYTES_MAX))
    except ValueError as error:
        raise KeyUnusable(f"{VERIFY_KEY_PATH}: {error}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise KeyUnusable(f"{VERIFY_KEY_PATH} holds another kind of key")
    return VerifyKey(key)
