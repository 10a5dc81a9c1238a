"""Credentials of datasources, encrypted at rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from watcher.platform.faults import Fault
from watcher.platform.secrets import Keys

if TYPE_CHECKING:
    from cryptography.fernet import Fernet, MultiFernet


class Vault:
    """Encrypts with the newest key of the installation, and reads what any of its keys encrypted."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._built: tuple[tuple[bytes, ...], Fernet, MultiFernet] | None = None

    def _build(self) -> tuple[Fernet, MultiFernet]:
        """What reads with the newest key, and with each of them."""
        from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415 - 7 MB that a folder does without

        keys, built = self._keys.vault_keys, self._built
        if built is None or built[0] != keys:
            fernets = [Fernet(key) for key in keys]
            built = self._built = keys, fernets[0], MultiFernet(fernets)
        return built[1:]

    def lock(self, plain: bytes) -> str:
        """The encrypted form, printable."""
        return self._build()[1].encrypt(plain).decode("ascii")

    def unlock(self, locked: str) -> bytes:
        """The plain form.

        Raises:
            Fault: none of the keys is the one it was encrypted with.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see above

        try:
            return self._build()[1].decrypt(locked)
        except InvalidToken as error:
            raise Fault(
                422,
                "DATASET_DATASOURCE_CREDENTIALS_ERROR",
                "the stored credentials cannot be read with the present key: set the datasource anew",
            ) from error

    def is_readable(self, locked: str) -> bool:
        """Whether one of the keys encrypted it."""
        try:
            self.unlock(locked)
        except Fault:
            return False
        return True

    def relock(self, locked: str) -> str:
        """The same, encrypted with the newest key; unchanged if it is already.

        Raises:
            Fault: as `unlock`.
        """
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - see above

        try:
            self._build()[0].decrypt(locked)
        except InvalidToken:
            return self.lock(self.unlock(locked))
        return locked
