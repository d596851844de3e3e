"""`persona data` lists public sets, and fetches one after showing its terms."""

import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from click.testing import CliRunner

from persona.cli import main
from persona.data import download


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_list_has_readers_terms_and_what_is_unverified(persona):
    code, said = persona("data", "list")
    assert code == 0
    assert said["movielens-1m"]["reader"] == "movielens"
    assert said["movielens-1m"]["verified"]
    assert "commercial" in said["movielens-1m"]["terms"]
    assert not said["hapt"]["verified"]
    text = CliRunner().invoke(main, ["data", "list"]).output
    assert "movielens-25m" in text
    assert "unverified" in text


def test_a_set_that_is_fetched_can_be_read(persona, tmp_path, monkeypatch):
    """The way from a server, over a checksum, to a reader."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    rows = [(u, (7 * u + 3 * e) % 150, e) for u in range(60) for e in range(20)]
    body = "".join(f"{u}\t{i}\t5\t{t}\n" for u, i, t in rows).encode()
    (served / "u.data").write_bytes(body)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/u.data"
        file = download.PublicFile(url, hashlib.md5(body, usedforsecurity=False).hexdigest())
        chosen = download.PublicSet("Small", "movielens", "https://example.org", "None.", (file,))
        monkeypatch.setitem(download.PUBLIC_SETS, "small", chosen)
        out = tmp_path / "out"
        code, said = persona("data", "fetch", "small", "--to", out)
        assert (code, said) == (0, {"name": "small", "path": str(out), "reader": "movielens"})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    from persona.data.movielens import MovieLens

    assert MovieLens(out, candidates=20).backbone_settings()["items"] == 150


def test_an_unknown_set_and_a_taken_folder_are_wrong_usage(refused, tmp_path):
    message = refused(2, "usage.name", "data", "fetch", "imagenet", "--to", tmp_path / "new")
    assert "movielens-1m" in message
    (tmp_path / "taken").write_text("")
    refused(2, "usage.place", "data", "fetch", "movielens-1m", "--to", tmp_path)


def test_a_server_out_of_reach_is_told_with_the_way_by_hand(refused, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Quiet)
    server.server_close()
    file = download.PublicFile(f"http://127.0.0.1:{server.server_port}/u.data")
    chosen = download.PublicSet("Small", "movielens", "https://example.org", "None.", (file,))
    monkeypatch.setitem(download.PUBLIC_SETS, "small", chosen)
    message = refused(2, "usage.download", "data", "fetch", "small", "--to", tmp_path / "out")
    assert "By hand: get http://127.0.0.1" in message
    assert not (tmp_path / "out").exists()
