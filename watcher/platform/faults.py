"""Refusals in the protocol's form.

Statuses: 401 no or unknown token, 403 not allowed or a URL that is forged or expired, 404 unknown or not visible,
409 taken (only on calls that the official client 1.5.26 does not repeat by itself), 413 too large, 429 too much
at once, 422 everything else that is final. 400 is never sent, since 1.5.26 repeats it for half a minute.
"""

from __future__ import annotations


class Fault(Exception):  # noqa: N818 - the protocol's word for it is "error", the package's tree is another one
    """An answer that is not a success.

    Attributes:
        status: HTTP status.
        code: code of the protocol.
        text: what is wrong and what to do about it.
    """

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(status, code, text)
        self.status = status
        self.code = code
        self.text = text


def unknown(code: str, text: str) -> Fault:
    """404."""
    return Fault(404, code, text)


def invalid(text: str, code: str = "MALFORMED_REQUEST") -> Fault:
    """422: final, so no client repeats it."""
    return Fault(422, code, text)


def taken(code: str, text: str) -> Fault:
    """409, for calls that no client repeats by itself."""
    return Fault(409, code, text)


def forbidden(text: str, code: str = "FORBIDDEN") -> Fault:
    """403."""
    return Fault(403, code, text)


def too_large(text: str, code: str = "PAYLOAD_TOO_LARGE") -> Fault:
    """413."""
    return Fault(413, code, text)


def unavailable(text: str) -> Fault:
    """503: the same call may succeed later."""
    return Fault(503, "CREATION_FAILED", text)
