"""A gate between daemon and platform that shifts the server's clock, or lets chosen requests hang."""

from __future__ import annotations

import email.utils
import http.client
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_HOP_HEADERS = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
_LONGEST_HANG_S = 300.0


class Gate:
    """Passes everything on to a port of this machine, until it is told otherwise."""

    def __init__(self, port: int) -> None:
        self.date_shift_s = 0
        self._hanging = ""
        self._delayed: tuple[str, float] | None = None
        self._let_go = threading.Event()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_all(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if gate._hanging and gate._hanging in f"{self.command} {self.path}":
                    gate._let_go.wait(_LONGEST_HANG_S)
                    self.close_connection = True
                    return
                delayed = gate._delayed
                if delayed is not None and delayed[0] in f"{self.command} {self.path}":
                    time.sleep(delayed[1])
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                try:
                    connection.request(self.command, self.path, body=body or None, headers=dict(self.headers))
                    answer = connection.getresponse()
                    content = answer.read()
                except (OSError, http.client.HTTPException):
                    self.close_connection = True
                    return
                finally:
                    connection.close()
                self.send_response_only(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in _HOP_HEADERS:
                        self.send_header(name, value)
                date = answer.getheader("Date")
                if date is not None:
                    shown = email.utils.parsedate_to_datetime(date).timestamp() + gate.date_shift_s
                    self.send_header("Date", email.utils.formatdate(shown, usegmt=True))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_all  # noqa: N815 - called by name

            def log_message(self, *_args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_args: object) -> None:
                pass

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def hang(self, part: str) -> None:
        """Requests whose `METHOD /path` holds this get no answer from now on."""
        self._let_go.clear()
        self._hanging = part

    def delay(self, part: str, *, seconds: float) -> None:
        """Requests whose `METHOD /path` holds this are passed on so much later from now on."""
        self._delayed = part, seconds

    def let_go(self) -> None:
        """Requests that hang are cut, and nothing hangs or is late any more."""
        self._hanging, self._delayed = "", None
        self._let_go.set()

    def close(self) -> None:
        self.let_go()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
