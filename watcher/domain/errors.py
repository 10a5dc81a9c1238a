"""Every error of the package, in one tree.

The class says whether trying again can help (`retryable`); facts are attributes; the text says what to do next.
No message holds a token or the query of a URL.

    WatcherError
    |-- ConfigError                    a setting or an argument is wrong: a person must change it
    |   |-- EmbedderChangedError       not the embedder of the dataset's other vectors  (retryable)
    |   |-- UnknownWatchError          no watch of that name
    |   `-- RefusedChangeError         not allowed in the state that the watch is in
    |-- StoreError                     the daemon's or the platform's database
    |   |-- SchemaMismatchError        run the named command
    |   |-- StoreLockedError           another process holds the store
    |   |-- FencedError                another replica leads by now                     (retryable)
    |   `-- StoreUnavailableError      full disk, unreachable server, locked file       (retryable)
    |-- ApiException                   an answer of the API that is not a success; see its `status`
    |   |-- UnauthorizedException      401
    |   |-- ForbiddenException         403
    |   |-- NotFoundException          404
    |   |-- TooManyRequestsException   429                                              (retryable)
    |   `-- ServiceException           5xx                                              (retryable)
    |-- TransportError                 no complete answer arrived                       (retryable)
    |   |-- NotSentError               the request never reached the server
    |   `-- UnknownOutcomeError        the server may have carried it out: look before repeating
    |-- ProtocolError                  an answer that does not follow the protocol
    |   |-- ListingLoopError           a listing that repeats itself or never ends
    |   `-- ProbeError                 a listing that contradicts itself, or what was known of it
    |-- StatementError                 a signed statement is not as it was made
    |-- ClockError                     a clock that cannot be believed; the poll waits     (retryable)
    |-- SampleError                    one sample cannot be processed; the others can
    |   |-- ImageError                 broken, not an image, too large
    |   |-- SampleGoneError            the object is no longer in the datasource
    |   `-- ReadUrlRefusedError        its read URL is expired or refused               (retryable)
    |-- DeliveryError                  a receiver of picks did not confirm              (retryable)
    |   |-- DeliveryRefusedError       it will never take this delivery
    |   `-- RedirectRefusedError       it sends callers elsewhere                       (retryable)
    |-- EmbedderError                  an embedder gave no vectors
    |   |-- EmbedderUnavailableError   too slow, ended, overloaded                      (retryable)
    |   `-- EmbedderAnswerError        its answer is no vectors
    |-- CommandError                   a program of the user's hung, ended, failed      (retryable)
    |-- SamplingError                  the server ended a sampling without a tag
    |-- ScoresError                    scores are missing, unreadable or out of range               (retryable)
    |-- DatasetError                   a dataset, tag, embedding or file does not fit the call (also ValueError)
    |   |-- MetadataFormatError        also KeyError
    |   |-- EmbeddingDoesNotExistError
    |   |-- TagDoesNotExistError
    |   `-- DatasetDoesNotExistError
    |-- DeadlineExceededError          a wait reached its limit                         (retryable)
    `-- CancelledError                 the caller asked to stop                         (retryable)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class WatcherError(Exception):
    """Base of all errors that this package raises on purpose.

    Attributes:
        retryable: whether the same call may succeed later without anyone changing anything.
        retry_after_s: the shortest sensible wait before the next try, when the other side named one.
        request_id: of the request that failed, to find it in the server's log.
    """

    retryable: bool = False
    retry_after_s: float | None = None
    request_id: str | None = None


class ConfigError(WatcherError):
    """A setting or an argument is wrong; the text names it and the way out."""


class UnknownWatchError(ConfigError):
    """There is no watch of that name; the text names those there are."""


class RefusedChangeError(ConfigError):
    """A change that somebody asked for is not allowed as things stand; the text tells why, and the way out."""


class StoreError(WatcherError):
    """The database cannot be used as it is."""


class SchemaMismatchError(StoreError):
    """The database has another schema version than this program."""


class StoreLockedError(StoreError):
    """Another process holds this store."""


class FencedError(StoreError):
    """A write that only the leader may do, by a process that does not lead (any more); nothing was written."""

    retryable = True


class StoreUnavailableError(StoreError):
    """The database cannot be reached or written at the moment: full disk, stopped server, locked file."""

    retryable = True


class ApiException(WatcherError):  # noqa: N818 - the name scripts written for `lightly` catch
    """An answer of the API that is not a success.

    Attributes:
        status: HTTP status code.
        reason: HTTP reason phrase.
        body: text of the body, at most a few kilobytes, signed queries removed.
        headers: response headers.
        code: the `code` field of the protocol's error body, if there was one.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        *,
        body: str = "",
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
        request: str = "",
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.body = body
        self.headers = dict(headers or {})
        self.code = code
        self.request = request
        self.retry_after_s = retry_after_s
        super().__init__(status, reason, body, code, request)

    def __reduce__(self) -> tuple[object, ...]:
        # Made again by attributes, since the constructor takes most of them by name.
        return (_rebuild_api_exception, (type(self), self.__dict__.copy()))

    def __str__(self) -> str:
        where = f"{self.request}: " if self.request else ""
        code = f" [{self.code}]" if self.code else ""
        body = f": {self.body}" if self.body else ""
        return f"{where}the server answered {self.status} {self.reason}{code}{body}"


def _rebuild_api_exception(kind: type[ApiException], state: dict[str, Any]) -> ApiException:
    names = ("status", "reason", "body", "headers", "code", "request", "retry_after_s")
    error = kind(**{name: state[name] for name in names})
    error.__dict__.update(state)
    return error


class UnauthorizedException(ApiException):
    """401: the token is missing or wrong."""


class ForbiddenException(ApiException):
    """403: the token may not do this."""


class NotFoundException(ApiException):
    """404: there is no such thing, or not for this token."""


class TooManyRequestsException(ApiException):
    """429: slow down; `retry_after_s` tells by how much when the server said so."""

    retryable = True


class ServiceException(ApiException):
    """5xx: the server failed."""

    retryable = True


def build_api_exception(
    status: int,
    reason: str = "",
    *,
    body: str = "",
    headers: Mapping[str, str] | None = None,
    code: str | None = None,
    request: str = "",
    retry_after_s: float | None = None,
) -> ApiException:
    """Makes the exception of the class that belongs to the HTTP status."""
    by_status: dict[int, type[ApiException]] = {
        401: UnauthorizedException,
        403: ForbiddenException,
        404: NotFoundException,
        429: TooManyRequestsException,
    }
    kind = ServiceException if status >= 500 else by_status.get(status, ApiException)
    return kind(
        status,
        reason,
        body=body,
        headers=headers,
        code=code,
        request=request,
        retry_after_s=retry_after_s,
    )


class TransportError(WatcherError):
    """No complete answer arrived: no connection, a time limit, a cut connection."""

    retryable = True


class NotSentError(TransportError):
    """The request never reached the server, so repeating it is safe."""


class UnknownOutcomeError(TransportError):
    """The request may have been carried out: look the effect up before repeating it."""


class ProtocolError(WatcherError):
    """The answer does not follow the protocol: HTML, half a JSON, a missing field."""


class ListingLoopError(ProtocolError):
    """A listing repeats a cursor or never ends."""


class ProbeError(ProtocolError):
    """The server's listing contradicts itself or what the store knows of it; polling by it would lose objects."""


class StatementError(WatcherError):
    """A signed statement, or its place in the chain, is not as it was made."""


class ClockError(WatcherError):
    """A clock is so wrong that no mark may be moved by it."""

    retryable = True


class SampleError(WatcherError):
    """One sample cannot be processed; the others can."""


class ImageError(SampleError):
    """The bytes are no image this program can read: broken, another kind of file, too large.

    Attributes:
        truncated: the file ends early (an empty one too), so it may still be in the making: look again later.
    """

    def __init__(self, message: str, *, truncated: bool = False) -> None:
        self.truncated = truncated
        super().__init__(message)


class SampleGoneError(SampleError):
    """The object is no longer in the datasource."""


class ReadUrlRefusedError(SampleError):
    """The read URL of the sample is refused, mostly because it expired."""

    retryable = True


class DeliveryError(WatcherError):
    """A receiver of picks did not confirm."""

    retryable = True


class DeliveryRefusedError(DeliveryError):
    """The receiver will never take this delivery, so it is dead at once; the text tells what to do."""

    retryable = False


class RedirectRefusedError(DeliveryError):
    """The receiver sends callers elsewhere; what is signed or carries a token goes only where it was told to."""


class EmbedderError(WatcherError):
    """An embedder gave no vectors."""


class EmbedderUnavailableError(EmbedderError):
    """The embedder took too long, ended, or is overloaded."""

    retryable = True


class EmbedderAnswerError(EmbedderError):
    """What the embedder answered is no vectors of its dimension; the same question would get the same answer."""


class EmbedderChangedError(ConfigError):
    """The settings name another embedder than the one of the dataset's vectors.

    Retryable, since a process with other settings may be the one that takes the run up next.
    """

    retryable = True


class CommandError(WatcherError):
    """A program of the user's hung, ended too early, or ended with a code other than 0.

    Attributes:
        answers: the lines it had printed by then.
    """

    retryable = True

    def __init__(self, message: str, *, answers: list[bytes] | None = None) -> None:
        self.answers = answers or []
        super().__init__(message)


class SamplingError(WatcherError, RuntimeError):
    """A sampling ended without a tag; the text is the server's."""


class ScoresError(WatcherError):
    """Scores cannot be had, lack some samples, or serve none of them; whoever makes them may still do so."""

    retryable = True


class DatasetError(WatcherError, ValueError, RuntimeError):
    """A dataset, tag, embedding or file does not fit what was asked of it.

    `ValueError` and `RuntimeError`, since scripts written for `lightly` catch the one or the other.
    """


class MetadataFormatError(DatasetError, KeyError):
    """Custom metadata lacks a part that it must have; `KeyError` as in `lightly`."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class EmbeddingDoesNotExistError(DatasetError):
    """There is no embedding of that name."""


class TagDoesNotExistError(DatasetError):
    """There is no tag of that name."""


class DatasetDoesNotExistError(DatasetError):
    """There is no dataset of that name."""


class DeadlineExceededError(WatcherError):
    """A wait reached its limit."""

    retryable = True


class CancelledError(WatcherError):
    """The caller asked to stop before the work was complete."""

    retryable = True
