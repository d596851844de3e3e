"""Keeps exporters and runtimes from filling the terminal with notices that are not ours.

They write through warnings, logging and sys.stderr and, from C++, to file descriptor 2.
"""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence warnings, logging below errors and whatever is written to stderr. Errors pass."""
    threshold = logging.root.manager.disable
    logging.disable(logging.WARNING)
    nowhere, terminal = os.open(os.devnull, os.O_WRONLY), os.dup(2)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            os.dup2(nowhere, 2)
            yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nowhere)
        logging.disable(threshold)
