"""Files into buckets: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.

Credentials come from where the clouds' own tools look: `AWS_ACCESS_KEY_ID` and its kin,
`GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, the roles of the machine.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
from pathlib import Path
from typing import Any

from watcher.domain.errors import ConfigError, StoreUnavailableError
from watcher.domain.redaction import redact

SCHEMES = ("s3", "gs", "az")
_RETRY: Any = {"max_retries": 3, "retry_timeout": dt.timedelta(seconds=60)}


def check_obstore() -> None:
    """Raises ConfigError if this installation cannot speak to buckets; loads nothing."""
    if importlib.util.find_spec("obstore") is None:
        raise ConfigError(
            "manifests in a bucket need obstore, which this installation lacks: install "
            "'datasource-watcher[buckets]', or take the full image instead of the slim one; or set location to a folder"
        )


def upload_file(path: Path, *, location: str, name: str) -> str:
    """Puts a file into a bucket, in the place of an earlier one of that name; it appears whole.

    Args:
        path: the file.
        location: `s3://bucket/prefix`, `gs://...` or `az://container/prefix`.
        name: of the object below the prefix.

    Returns:
        The object's address.

    Raises:
        ConfigError: no such bucket, refused credentials, or no obstore.
        StoreUnavailableError: the bucket cannot be reached at the moment.
    """
    check_obstore()
    import obstore  # noqa: PLC0415 - only buckets need it
    from obstore import exceptions  # noqa: PLC0415 - of an extra, loaded when it is asked for
    from obstore.store import from_url  # noqa: PLC0415 - of an extra, loaded when it is asked for

    address = f"{location.rstrip('/')}/{name}"
    try:
        store = from_url(location, retry_config=_RETRY)
        with path.open("rb") as file:
            obstore.put(store, name, file)
    except (exceptions.BaseError, OSError) as error:
        # The driver's texts hold addresses with their queries, and tell more than a person needs.
        text = redact(str(error)).partition("\n")[0][:200]
        if _is_refused(error):
            raise StoreUnavailableError(
                f"{address} cannot be written: the credentials are refused; check AWS_ACCESS_KEY_ID, "
                "GOOGLE_APPLICATION_CREDENTIALS or AZURE_STORAGE_ACCOUNT_NAME and what belongs to it"
            ) from error
        raise StoreUnavailableError(f"{address} cannot be written: {text}") from error
    return address


def fetch_file(path: Path, *, location: str, name: str) -> bool:
    """Writes an object of a bucket to a path.

    Returns:
        False, with nothing written, if there is none, or if the credentials may not read.

    Raises:
        ConfigError: no obstore.
        StoreUnavailableError: the bucket cannot be reached at the moment.
    """
    check_obstore()
    import obstore  # noqa: PLC0415 - only buckets need it
    from obstore import exceptions  # noqa: PLC0415 - of an extra, loaded when it is asked for
    from obstore.store import from_url  # noqa: PLC0415 - of an extra, loaded when it is asked for

    address = f"{location.rstrip('/')}/{name}"
    try:
        answer = obstore.get(from_url(location, retry_config=_RETRY), name)
        with path.open("wb") as file:
            file.writelines(answer.stream())
    except (exceptions.BaseError, OSError) as error:
        if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)) or _is_refused(error):
            return False
        text = redact(str(error)).partition("\n")[0][:200]
        raise StoreUnavailableError(f"{address} cannot be read: {text}") from error
    return True


def _is_refused(error: Exception) -> bool:
    from obstore import exceptions  # noqa: PLC0415 - of an extra, loaded when it is asked for

    refused = (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError)
    return isinstance(error, refused) or any(
        status in str(error) for status in ("403 Forbidden", "401 Unauthorized")
    )
