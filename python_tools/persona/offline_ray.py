"""Parts of offline edits on Ray Data: a pool of processes, on this machine or on a cluster.

Workers share nothing but the folder: each opens run, bundle and observations there, and writes its
parts there. So on a cluster these are paths of a file system that every machine has.
"""

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from persona.offline_edits import PartMaker
from persona.quiet import quietly

LOCAL = "local"

_CONNECT_SECONDS = 5.0


class RayError(ValueError):
    """Ray cannot be used; the message says why and what to do."""


def import_ray() -> Any:
    """The module, without its telemetry. Raises RayError where it is missing."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise RayError(
            f"--ray needs Ray ({error}); install it with `pip install 'persona-edge[ray]'`, or "
            "leave --ray out to compute with one process"
        ) from None
    return ray


class _Worker:
    """A process of the pool; the model is loaded once in each, with the first row."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._maker: PartMaker | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if self._maker is None:
            self._maker = PartMaker(*(Path(row[name]) for name in ("run", "bundle", "out")))
        part = self._maker.make(row["part"])
        return {"edits": part.edits, "refused": sum(part.problems.values())}


def make_on_ray(
    parts: Sequence[int],
    run: Path,
    bundle: Path,
    out: Path,
    address: str,
    made: Callable[[int, int], None],
    workers: int | None = None,
) -> None:
    """Make parts on a cluster.

    address: of a cluster, or `local` for one that lives as long as this call. workers: processes;
    one for each processor of the cluster, unless it is given. made: called after each part with
    its edits and its refused observations. Raises RayError.
    """
    ray = import_ray()
    with quietly(), _cluster(ray, address, workers):
        count = workers or int(ray.cluster_resources()["CPU"])
        ray.data.DataContext.get_current().enable_progress_bars = False
        places = {
            name: str(path.absolute())
            for name, path in (("run", run), ("bundle", bundle), ("out", out))
        }
        rows = [{"part": part, **places} for part in parts]
        done = ray.data.from_items(rows, override_num_blocks=len(parts)).map(
            _Worker,
            compute=ray.data.ActorPoolStrategy(size=min(count, len(parts))),
            num_cpus=1,
        )
        for row in done.iter_rows():
            made(row["edits"], row["refused"])


@contextmanager
def _cluster(ray: Any, address: str, workers: int | None) -> Iterator[None]:
    """Be connected to a cluster for a while."""
    size = {"num_cpus": workers} if address == LOCAL else {}
    try:
        host, _, port = address.rpartition("/")[2].rpartition(":")
        if host:
            socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
        ray.init(address, include_dashboard=False, log_to_driver=False, **size)
    except (OSError, ValueError) as error:
        raise RayError(
            f"no Ray cluster answers at {address}: {error}; name one, or `local`"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()
