"""gunicorn's threaded worker, in which slow clients hold no thread.

A request gets a thread when it has arrived in full; until then the worker's one event loop collects
it, for `REQUEST_SECONDS` at most. Refusals are problem documents; what could not be parsed is
neither sent back nor logged: it may hold a token.
"""

import errno
import json
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from selectors import EVENT_READ
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http import errors
from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import TConn, ThreadWorker

from persona_cloud.arriving import (
    TooManyChunksError,
    is_complete,
    is_probe,
    permitted,
    waits_for_permission,
)
from persona_cloud.observing import JsonFormatter
from persona_cloud.problems import KINDS, MEDIA_TYPE

_STATUS = {
    errors.LimitRequestLine: 414,
    errors.LimitRequestHeaders: 431,
    errors.ExpectationFailed: 417,
    errors.UnsupportedTransferCoding: 501,
    errors.ForbiddenProxyRequest: 403,
}


REQUEST_SECONDS = 10.0
"""How long a request may take to arrive, from its connection or its first byte on."""

IDLE_SECONDS = 2.0
"""How long a stopping worker waits for a request of which nothing has come."""

ANSWER_SECONDS = 10
"""How long a client may take none of an answer, or send none of a body too long to wait for."""

MAX_COLLECTED = 64 * 2**20
"""Bytes of unfinished requests that a process holds; then the largest has to go."""

_READ = 65_536

_PROBE_THREADS = 2


@dataclass(eq=False)
class _Arriving:
    """A connection whose request is not here in full."""

    conn: TConn
    deadline: float
    data: bytes = b""


class Worker(ThreadWorker):
    """For `gunicorn --worker-class persona_cloud.worker.Worker`.

    stopping: set as soon as it is told to stop.
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.stopping = threading.Event()
        self._probing = ThreadPoolExecutor(_PROBE_THREADS)
        self._arriving: dict[int, _Arriving] = {}
        self._collected = 0

    def accept(self, listener: socket.socket) -> None:
        """Take a connection, if there is one."""
        self._took(listener)

    def _took(self, listener: socket.socket) -> bool:
        try:
            client, address = listener.accept()
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ECONNABORTED, errno.EWOULDBLOCK):
                raise
            return False
        for timeout in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            client.setsockopt(socket.SOL_SOCKET, timeout, struct.pack("ll", ANSWER_SECONDS, 0))
        self.nr_conns += 1
        self._collect(TConn(self.cfg, client, address, listener.getsockname()))
        return True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: finish what was taken, and say that there will be no more."""
        self.stopping.set()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool | None) -> None:
        """When stopping, take the connections that wait for it, and have later ones refused.

        Left open, the listener would let them in, to be reset when the process ends.
        """
        super().set_accept_enabled(enabled)
        if not enabled and not self.alive:
            for listener in self.sockets:
                listener.setblocking(False)
                while self._took(listener):
                    pass
                listener.close()

    def on_client_socket_readable(self, conn: TConn, client: socket.socket) -> None:
        """A kept connection has the beginning of another request."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._collect(conn)

    def murder_pending(self) -> None:
        """Refuse requests that did not arrive in time; when stopping, leave those never begun."""
        super().murder_pending()
        now = time.monotonic()
        for arriving in list(self._arriving.values()):
            begun = arriving.deadline - REQUEST_SECONDS
            never = not self.alive and not arriving.data and now > begun + IDLE_SECONDS
            if now >= arriving.deadline or never:
                said = f"{HTTPStatus.REQUEST_TIMEOUT.phrase}: not sent in {REQUEST_SECONDS:g} s."
                self._refuse(arriving, 408, "request.slow", said)
        self._make_room()

    def _make_room(self) -> None:
        """Where no place is left, end connections that idle, the longest first.

        Only here, after all that was readable in this round was read: a connection that is closed
        before would still have its turn.
        """
        while self.nr_conns >= self.worker_connections and self.keepalived_conns:
            conn = self.keepalived_conns.popleft()
            self.poller.unregister(conn.sock)
            self._close(conn)

    def _collect(self, conn: TConn) -> None:
        conn.sock.setblocking(False)
        arriving = _Arriving(conn, time.monotonic() + REQUEST_SECONDS)
        self._arriving[id(conn)] = arriving
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_arriving, arriving))

    def _on_arriving(self, arriving: _Arriving, client: socket.socket) -> None:
        if self._arriving.get(id(arriving.conn)) is not arriving:
            return  # Refused in this round, as the largest.
        try:
            part = client.recv(_READ)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._leave(arriving)
            self._close(arriving.conn)
            return
        arriving.data += part
        self._collected += len(part)
        if waits_for_permission(arriving.data):
            arriving.data = permitted(arriving.data)
            write_nonblock(client, b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            complete = is_complete(arriving.data)
        except TooManyChunksError:
            self._refuse(arriving, 400, "request.malformed", "Too many chunks.")
            return
        if complete:
            self._leave(arriving)
            self._give_thread(arriving)
        elif self._collected > MAX_COLLECTED:
            largest = max(self._arriving.values(), key=lambda one: len(one.data))
            said = "Too many unfinished requests."
            self._refuse(largest, 503, "server.busy", said, "Retry-After: 1\r\n")

    def _give_thread(self, arriving: _Arriving) -> None:
        conn = arriving.conn
        conn.init()
        parser: Any = conn.parser
        parser.unreader.unread(arriving.data)
        conn.data_ready = True
        threads = self._probing if is_probe(arriving.data) else self.tpool
        answering = threads.submit(self.handle, conn)
        answering.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def _leave(self, arriving: _Arriving) -> None:
        del self._arriving[id(arriving.conn)]
        self.poller.unregister(arriving.conn.sock)
        self._collected -= len(arriving.data)

    def _refuse(
        self, arriving: _Arriving, status: int, code: str, said: str, header: str = ""
    ) -> None:
        self._leave(arriving)
        if arriving.data:
            try:
                arriving.conn.sock.send(_answer(status, code, said, header))
            except OSError:
                self.log.debug("the client did not wait for its refusal")
        self._close(arriving.conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:  # noqa: ARG002
        """Answer a request that never reached the app."""
        if isinstance(exc, errors.ParseException):
            status = next((s for kind, s in _STATUS.items() if isinstance(exc, kind)), 400)
            self.log.warning("a request could not be read: %s", type(exc).__name__)
            code = "request.malformed"
            said = f"{HTTPStatus(status).phrase}: {type(exc).__name__}."
        else:
            status, code = 500, "server.failed"
            self.log.error("a request failed outside the app", exc_info=exc)
            said = "This request was not answered."
        try:
            write_nonblock(client, _answer(status, code, said))
        except OSError:
            self.log.debug("the client did not wait for its refusal")


class JsonLogger(Logger):
    """gunicorn's messages as JSON, beside the app's."""

    def setup(self, cfg: Any) -> None:
        """As gunicorn does, in another form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(JsonFormatter())


def _answer(status: int, code: str, said: str, header: str = "") -> bytes:
    kind = KINDS[code]
    document = {
        "type": f"/docs#{code}",
        "title": kind.title,
        "status": status,
        "code": code,
        "detail": f"{said} {kind.next_step}",
    }
    body = json.dumps(document).encode()
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        "Connection: close\r\n"
        f"Content-Type: {MEDIA_TYPE}\r\n"
        "Cache-Control: no-store\r\n"
        f"{header}"
        "X-Content-Type-Options: nosniff\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
