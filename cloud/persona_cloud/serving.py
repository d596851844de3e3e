"""Serving the app: embedded gunicorn for hosts, a thread for tests."""

import errno
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from prometheus_client.multiprocess import mark_process_dead
from werkzeug.serving import WSGIRequestHandler, make_server

from persona_cloud.observing import log_as_json
from persona_cloud.service import service_of
from persona_cloud.worker import JsonLogger, Worker

_POLL_SECONDS = 0.05

THREADS = 64
"""Threads of a process. More than `Limits.max_waiting`: the others say no, and that we live."""

CONNECTIONS = 900
"""Of a process, idle ones too. Linux gives 1,024 descriptors; files and databases need some."""

KEPT_SECONDS = 650
"""How long a connection may idle: longer than proxies let it, which else send on a closing one."""

Ready = Callable[[str], None]
"""Called with the URL as soon as connections are taken."""


class ListenError(OSError):
    """An address that cannot be listened on; the message says why and what to do."""


class PortInUseError(ListenError):
    """A port that another program listens on."""


class ServerFailedError(RuntimeError):
    """The worker processes could not be kept running; the log says why."""


def serve(
    app: Flask,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    workers: int = 1,
    threads: int = THREADS,
    ready: Ready = lambda _: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, then finish what is in flight and return.

    port: 0 takes a free one. workers: processes, which share the loaded model; as many as cores
    serve most. torch computes with one thread in each, so that they never fight over cores: one
    forward is small, and batches use what more threads would. Must be called in the main thread.
    Raises PortInUseError, ListenError or ServerFailedError.
    """
    torch.set_num_threads(1)
    log_as_json()
    gc.freeze()  # all that is loaded stays: looking for garbage in it would stop every thread
    listener = _listen(host, port)
    url = _url(host, listener.getsockname()[1])

    def on_ready(_: Arbiter) -> None:
        ready(url)
        sys.stdout.flush()

    def in_worker(worker: Worker) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        worker.stopping = service_of(app).stopping
        service_of(app).store.after_fork()

    settings = {
        "bind": f"fd://{listener.detach()}",
        "workers": workers,
        "threads": threads,
        "worker_connections": CONNECTIONS,
        "keepalive": KEPT_SECONDS,
        "worker_class": Worker,
        "logger_class": JsonLogger,
        "loglevel": "warning",
        "child_exit": _worker_gone,
        "control_socket_disable": True,
        "when_ready": on_ready,
        "post_worker_init": in_worker,
    }
    before = {number: signal.getsignal(number) for number in Arbiter.SIGNALS}
    master = os.getpid()
    try:
        _GracefulArbiter(_Embedded(app, settings)).run()
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 0
        if os.getpid() != master:
            os._exit(code)
        if code:
            raise ServerFailedError(
                "the server's workers do not start; see the messages above"
            ) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _worker_gone(_: Arbiter, worker: Any) -> None:
    """Metrics of what a process has done stay; of what it was doing, they go with it."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        mark_process_dead(worker.pid)


class _Embedded(BaseApplication):
    """gunicorn's view of an app that is loaded already."""

    def __init__(self, app: Flask, settings: dict[str, Any]) -> None:
        self._app, self._settings = app, settings
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        return self._app


class _GracefulArbiter(Arbiter):
    """Ctrl-C stops as SIGTERM does; a second one stops at once."""

    handle_int = Arbiter.handle_term


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} is in use on {host}; stop the program that listens there, or choose "
                "another port (0 takes a free one)"
            ) from None
        raise ListenError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another host or port"
        ) from None


def _url(host: str, port: int) -> str:
    """A URL that this machine can open."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


@contextmanager
def running(app: Flask) -> Iterator[str]:
    """Serve `app` on a free local port from a thread, for as long as the context lasts."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield _url("127.0.0.1", server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of each request."""
