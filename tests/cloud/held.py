"""A function whose callers wait until they are let go on."""

import threading
from collections.abc import Callable
from typing import Any

_SECONDS = 60.0


class Held:
    """sizes: for how many requests each call was, which are its last argument."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.sizes: list[int] = []
        self.begun, self.open = threading.Semaphore(0), threading.Event()

        def called(*arguments: Any) -> Any:
            self.sizes.append(len(arguments[-1]))
            self.begun.release()
            self.open.wait(_SECONDS)
            return function(*arguments)

        self.called = called
