"""`persona serve`: the cloud adapter on this machine, with SQLite in a file."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from persona.cli.phone_link import deep_link, print_qr, reachable_from_phones
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
@click.option(
    "--versions",
    type=click.Path(path_type=Path),
    help="Below this folder lie versions that operators may publish.  [default: RUN/versions]",
    metavar="DIR",
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
    versions: Path | None,
    as_json: bool,
) -> None:
    """Answer observations with signed edits until interrupted.

    Keys are made in RUN/keys on first start. A phone's camera reads the QR code and opens the
    demo app with this cloud; to be reached from phones, listen with --host 0.0.0.0. With --json
    the address is printed as one object when the server is ready.
    """
    with _shared_metrics(workers):
        from persona.runs import last_bundle
        from persona_cloud import CloudConfig, create_app
        from persona_cloud.config import Quotas
        from persona_cloud.service import service_of
        from persona_cloud.serving import serve as serve_forever

        served = bundle or last_bundle(run)
        quotas = Quotas(storage=redis) if redis else Quotas()
        config = CloudConfig(
            run, served, database, quotas=quotas, proxies=proxies, versions=versions
        )
        app = create_app(config)

        def ready(url: str) -> None:
            publisher = service_of(app).versions.stable().key_id
            link = deep_link(reachable_from_phones(url, host), publisher)
            if as_json:
                say_json({"url": url, "link": link})
                return
            stdout.print(f"[green]serving[/] {served} at [bold]{url}[/]  (docs: {url}/docs)")
            print_qr(link)

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
