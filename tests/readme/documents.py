"""Runs what documents say, so that they stay true.

A comment on the line before a fence marks it; a fence without one is for reading only:

    <!-- file: NAME -->          the fence is the file NAME
    <!-- run -->                 the fence is run by bash -euo pipefail
    <!-- run: prints TEXT -->    and TEXT must be in its output
    <!-- given: NAME -->         anywhere: data that the reader has, see `given.py`

All fences of a document run in one shell and one folder, as in a reader's terminal.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .given import GIVEN

_MARK = re.compile(r"<!--\s*(run|file|given)(?::\s*(.*?))?\s*-->")
_FENCE = re.compile(r"(`{3,}|~{3,})\s*(\w*)\s*")
_SHELLS = ("sh", "bash")


class DocumentError(AssertionError):
    """A document that is marked wrongly, or says what does not happen."""


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of its fence. kind: "run", "file" or None. argument: of its mark."""

    line: int
    language: str
    text: str
    kind: str | None
    argument: str


@dataclass(frozen=True)
class Document:
    """A document in pieces. prose: its lines outside fences, by number, from 1."""

    name: str
    given: tuple[str, ...]
    blocks: tuple[Block, ...]
    prose: dict[int, str]

    def marked(self, kind: str) -> list[Block]:
        """Blocks marked as "run" or "file"."""
        return [block for block in self.blocks if block.kind == kind]


def read_document(path: Path) -> Document:
    """Take a document apart. Raises DocumentError where a mark has no fence after it."""
    given: list[str] = []
    blocks: list[Block] = []
    prose: dict[int, str] = {}
    mark: tuple[str | None, str] = (None, "")
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    for number, line in lines:
        fence = _FENCE.fullmatch(line)
        if fence is not None:
            body = []
            for _, inner in lines:
                if inner.rstrip() == fence[1]:
                    break
                body.append(inner)
            text = "".join(f"{inner}\n" for inner in body)
            blocks.append(Block(number, fence[2], text, *mark))
            mark = (None, "")
            continue
        if mark[0] is not None:
            raise DocumentError(f"{path.name}:{number}: expected a fence after the mark")
        prose[number] = line
        found = _MARK.fullmatch(line.strip())
        if found is not None and found[1] == "given":
            given.append(found[2] or "")
        elif found is not None:
            mark = (found[1], found[2] or "")
    return Document(path.name, tuple(given), tuple(blocks), prose)


def run_document(document: Document, folder: Path, seconds: float = 300) -> None:
    """Write the document's files and run its commands in `folder`, which is empty.

    What it leaves running is stopped. Raises DocumentError with the block that failed and its
    output.
    """
    here, parts = folder / "here", folder / "parts"
    here.mkdir()
    parts.mkdir()
    for name in document.given:
        if name not in GIVEN:
            raise DocumentError(f"{document.name}: given {name!r}; there are {', '.join(GIVEN)}")
        GIVEN[name](here)
    script = ["set -euo pipefail", _STOP_ALL]
    for index, block in enumerate(document.blocks):
        if block.kind is not None:
            (parts / f"{index}").write_text(block.text, encoding="utf-8")
            script.append(_step(document, block, parts / f"{index}"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code = _bash("\n".join(script), here, {**os.environ, "PATH": path}, seconds)
    ran = [(i, b) for i, b in enumerate(document.blocks) if (parts / f"{i}.out").exists()]
    for index, block in ran:
        output = (parts / f"{index}.out").read_text(encoding="utf-8", errors="replace")
        came = f"{document.name}:{block.line}\n{block.text}\nprinted\n{output}"
        if code != 0 and index == ran[-1][0]:
            raise DocumentError(f"exit code {code} from {came}")
        if block.argument and block.argument.removeprefix("prints ") not in output:
            raise DocumentError(f"expected it to print {block.argument[7:]!r}: {came}")
    if code != 0:
        raise DocumentError(f"exit code {code} before the first block of {document.name}")


_STOP_ALL = "trap 'code=$?; kill $(jobs -p) 2>/dev/null || true; wait || true; exit $code' EXIT"


def _step(document: Document, block: Block, part: Path) -> str:
    """The line of the script that does a block."""
    source = shlex.quote(str(part))
    if block.kind == "file":
        target = shlex.quote(block.argument)
        return f"mkdir -p $(dirname {target}); cp {source} {target}"
    if block.language not in _SHELLS:
        raise DocumentError(
            f"{document.name}:{block.line}: expected sh to run, got {block.language!r}"
        )
    if block.argument and not block.argument.startswith("prints "):
        raise DocumentError(
            f"{document.name}:{block.line}: expected 'run: prints TEXT', got {block.argument!r}"
        )
    return f"source {source} > {source}.out 2>&1"


def _bash(script: str, folder: Path, environment: dict[str, str], seconds: float) -> int:
    """Run a script in a session of its own; whatever is left after `seconds` is killed."""
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return 124
