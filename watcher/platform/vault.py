"""Credentials of datasources, encrypted at rest."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from watcher.platform.faults import Fault
from watcher.platform.secrets import Keys

if TYPE_CHECKING:
    from cryptography.fernet import Fernet


class Vault:
    """Encrypts with a key of the installation."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    @functools.cached_property
    def _fernet(self) -> Fernet:
        from cryptography.fernet import Fernet  # noqa: PLC0415 - seven megabytes that a folder does without

        return Fernet(self._keys.vault_key)

    def lock(self, plain: bytes) -> str:
        """The encrypted form, printable."""
        return self._fernet.encrypt(plain).decode("ascii")

    def unlock(self, locked: str) -> bytes:
        """The plain form.

        Raises:
            Fault: the key is not the one it was encrypted with.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see above

        try:
            return self._fernet.decrypt(locked)
        except InvalidToken as error:
            raise Fault(
                422,
                "DATASET_DATASOURCE_CREDENTIALS_ERROR",
                "the stored credentials cannot be read with the present key: set the datasource anew",
            ) from error
