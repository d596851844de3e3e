"""`persona serve`: the cloud adapter on this machine, with SQLite in a file."""

from pathlib import Path

import click

from persona.cli.terminal import command, json_option, say_json, stdout


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
    "--database", help="SQLAlchemy URL.  [default: SQLite in RUN/cloud.sqlite]", metavar="URL"
)
@json_option
@command
def serve(
    run: Path, bundle: Path | None, host: str, port: int, database: str | None, as_json: bool
) -> None:
    """Answer observations with signed edits until interrupted.

    Keys are made in RUN/keys on first start. With --json the address is printed as one object
    when the server is ready.
    """
    from persona.runs import last_bundle
    from persona_cloud import CloudConfig, create_app
    from persona_cloud.serving import serve as serve_forever

    served = bundle or last_bundle(run)
    app = create_app(CloudConfig(run=run, bundle=served, database_url=database))

    def ready(url: str) -> None:
        if as_json:
            say_json({"url": url})
        else:
            stdout.print(f"[green]serving[/] {served} at [bold]{url}[/]  (docs: {url}/docs)")

    serve_forever(app, host, port, ready=ready)
