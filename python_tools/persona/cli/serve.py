"""`persona serve`: the cloud adapter on this machine, with SQLite in a file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from persona.cli.terminal import command, json_option, say_json, stdout

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    type=click.Path(path_type=Path),
    help="The bundle it serves.  [default: the one exported last]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8080,
    show_default=True,
    help="Port; 0 takes a free one.",
)
@click.option(
    "--database",
    envvar="DATABASE_URL",
    help="SQLAlchemy URL, also from DATABASE_URL.  [default: SQLite in RUN/cloud.sqlite]",
    metavar="URL",
)
@click.option(
    "--redis",
    envvar="REDIS_URL",
    help="Where processes share their quotas, also from REDIS_URL.  [default: each counts alone]",
    metavar="URL",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes; as many as there are cores serve most.",
)
@click.option(
    "--proxies",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Reverse proxies in front that add X-Forwarded-For.",
)
@json_option
@command
def serve(
    run: Path,
    bundle: Path | None,
    host: str,
    port: int,
    database: str | None,
    redis: str | None,
    workers: int,
    proxies: int,
    as_json: bool,
) -> None:
    """Answer observations with signed edits until interrupted.

    Keys are made in RUN/keys on first start. With --json the address is printed as one object
    when the server is ready.
    """
    with _shared_metrics(workers):
        from persona.runs import last_bundle
        from persona_cloud import CloudConfig, create_app
        from persona_cloud.config import Quotas
        from persona_cloud.serving import serve as serve_forever

        served = bundle or last_bundle(run)
        quotas = Quotas(storage=redis) if redis else Quotas()
        app = create_app(CloudConfig(run, served, database, quotas=quotas, proxies=proxies))

        def ready(url: str) -> None:
            if as_json:
                say_json({"url": url})
            else:
                stdout.print(f"[green]serving[/] {served} at [bold]{url}[/]  (docs: {url}/docs)")

        serve_forever(app, host, port, workers=workers, ready=ready)


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder where several workers add up their metrics, named before prometheus-client loads."""
    if workers == 1 or METRICS_FOLDER in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="persona-metrics-") as folder:
        os.environ[METRICS_FOLDER] = folder
        yield
        del os.environ[METRICS_FOLDER]
