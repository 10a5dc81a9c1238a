"""A program of the user's that is fed lines and answers with lines: watched, bounded, ended with its whole group."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from watcher.domain.clock import Clock
from watcher.domain.errors import CommandError, ConfigError
from watcher.domain.redaction import redact

if TYPE_CHECKING:
    import io

_CHUNK_BYTES = 65536
_LONGEST_LINE_BYTES = 4_000_000
# Of one exchange; a program that never stops printing must not fill the memory.
_MOST_BYTES = 64_000_000
_KEPT_STDERR_BYTES = 2000
_LOOK_UP_S = 0.2
_END_S = 5.0


class LineProcess:
    """A running program; used by one thread at a time.

    It gets a process group of its own, which is killed as a whole by `close`, when this object goes, and when the
    interpreter ends. If this process is killed, the program sees the end of its standard input.

    Args:
        command: program and arguments; no shell.
        what: names it in errors.
        clock: where time comes from.

    Raises:
        ConfigError: the program cannot be started.
    """

    def __init__(self, command: Sequence[str], *, what: str, clock: Clock) -> None:
        self._what = what
        self._clock = clock
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own program, without a shell
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"{what}: {command[0]!r} cannot be started: {reason}") from error
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        for pipe in (self._process.stdin, self._process.stdout):
            os.set_blocking(pipe.fileno(), False)
        self._left = b""
        self._n_read = 0
        self._stderr = bytearray()
        self._drain = threading.Thread(target=self._keep_stderr, name="stderr", daemon=True)
        self._drain.start()
        self._finalizer = weakref.finalize(self, _end_group, self._process)

    def exchange(
        self, lines: Sequence[bytes], *, n_answers: int | None, time_limit_s: float, check: Callable[[], None]
    ) -> list[bytes]:
        """Writes the lines and reads answers, both at once, so that neither side waits for the other for ever.

        Args:
            lines: without their line ends.
            n_answers: how many lines to read; None closes the standard input and reads to the end of the program.
            time_limit_s: longest time for all of it.
            check: called often; what it raises ends the program.

        Returns:
            The lines, without their ends; empty ones left out.

        Raises:
            CommandError: it ended too early or with a code other than 0, took too long, wrote an endless line, or more
                than 64 MB. The program is ended.
        """
        answers: list[bytes] = []
        try:
            self._exchange(lines, n_answers, answers, time_limit_s, check)
        except CommandError as error:
            self.close()
            error.answers = answers
            raise
        except BaseException:
            self.close()
            raise
        return answers

    def _exchange(
        self,
        lines: Sequence[bytes],
        n_answers: int | None,
        answers: list[bytes],
        time_limit_s: float,
        check: Callable[[], None],
    ) -> None:
        ends_s = self._clock.monotonic_s() + time_limit_s
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        unsent = memoryview(b"".join(line + b"\n" for line in lines))
        self._n_read = 0
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if unsent:
                selector.register(stdin, selectors.EVENT_WRITE)
            elif n_answers is None:
                stdin.close()
            while n_answers is None or len(answers) < n_answers:
                check()
                left_s = ends_s - self._clock.monotonic_s()
                if left_s <= 0:
                    raise CommandError(f"{self._what} did not answer within {time_limit_s:g} s{self._told()}")
                for key, _ in selector.select(min(left_s, _LOOK_UP_S)):
                    if key.fileobj is stdin:
                        unsent = self._write(stdin.fileno(), unsent)
                        if not unsent:
                            selector.unregister(stdin)
                            if n_answers is None:
                                stdin.close()
                    elif not self._read(stdout.fileno(), answers):
                        if n_answers is None:
                            self._finish()
                            return
                        raise CommandError(
                            f"{self._what} ended with {self._wait()} before it answered{self._told()}"
                        )

    def _write(self, handle: int, unsent: memoryview) -> memoryview:
        try:
            return unsent[os.write(handle, unsent[:_CHUNK_BYTES]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:  # it reads no more; whether that is a fault shows in what it answers
            return unsent[len(unsent) :]

    def _read(self, handle: int, answers: list[bytes]) -> bool:
        """False at the end of the output."""
        try:
            chunk = os.read(handle, _CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._n_read += len(chunk)
        if self._n_read > _MOST_BYTES:
            raise CommandError(f"{self._what} wrote more than {_MOST_BYTES} bytes for one hand-over")
        *whole, self._left = (self._left + chunk).split(b"\n")
        answers += [line for line in whole if line.strip()]
        if not chunk and self._left.strip():
            answers.append(self._left)
        if len(self._left) > _LONGEST_LINE_BYTES:
            raise CommandError(f"{self._what} wrote a line longer than {_LONGEST_LINE_BYTES} bytes")
        return bool(chunk)

    def _finish(self) -> None:
        code = self._wait()
        if code != 0:
            raise CommandError(f"{self._what} ended with {code}{self._told()}")
        self.close()

    def _wait(self) -> int | str:
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return "its output closed, but did not end"
        finally:
            self._drain.join(_END_S)
        return code if code >= 0 else f"signal {signal.Signals(-code).name}"

    def _told(self) -> str:
        text = redact(bytes(self._stderr).decode("utf-8", "replace")).strip()
        return f"; its standard error ends: {text[-500:]}" if text else ""

    def _keep_stderr(self) -> None:
        stderr = cast("io.BufferedReader", self._process.stderr)
        with stderr:
            while chunk := stderr.read1(_CHUNK_BYTES):
                self._stderr += chunk
                del self._stderr[:-_KEPT_STDERR_BYTES]

    @property
    def pid(self) -> int:
        """Of the program and of its group."""
        return self._process.pid

    def close(self) -> None:
        """Kills the program and all it started; harmless if it is gone."""
        self._finalizer()
        self._drain.join(_END_S)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    try:
        # Its group may outlive the program itself.
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
    process.wait(_END_S)
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                continue
