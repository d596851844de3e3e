"""The client against a small real HTTP server that answers as it is told."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from persona.device.client import (
    ATTEMPTS,
    BACK_OFF_SECONDS,
    LONGEST_WAIT_SECONDS,
    CloudClient,
    CloudError,
    OfflineError,
)
from persona.formats.observation import Envelope, ItemsObservation

ENVELOPE = Envelope("ab" * 32, ItemsObservation(np.array([1, 2, 3])))
EDIT = (200, {"Persona-Key-Id": "key", "Persona-Signature": "c2lnbmVk"}, b"edit")
BUSY = (503, {}, b"")


@dataclass
class Server:
    """Answers in turn, the last one for ever; keeps what was asked."""

    url: str
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    chance: float = 0.0

    def client(self) -> CloudClient:
        return CloudClient(self.url, "net", sleep=self.waited.append, chance=lambda: self.chance)


@contextmanager
def answering(*answers: tuple[int, dict[str, str], bytes]) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            served.asked.append((self.path, dict(self.headers), body))
            status, headers, content = answers[min(len(served.asked), len(answers)) - 1]
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Server(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def problem(status: int, **fields: object) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/problem+json"}, json.dumps(fields).encode()


def test_an_overloaded_cloud_is_asked_again_with_the_same_key_and_body():
    with answering(BUSY, BUSY, EDIT) as server, server.client() as cloud:
        answer = cloud.request_edit("token", ENVELOPE)
    assert answer.data == b"edit"
    assert (answer.signature.key_id, answer.signature.der) == ("key", b"signed")
    assert len(server.asked) == 3
    assert len({headers["Idempotency-Key"] for _, headers, _ in server.asked}) == 1
    assert len({body for _, _, body in server.asked}) == 1
    path, headers, body = server.asked[0]
    assert path == "/v1/models/net/edits"
    assert headers["Authorization"] == "Bearer token"
    assert headers["Content-Type"] == "application/vnd.persona.observation+safetensors"
    assert int.from_bytes(body[:8], "little") < len(body)
    assert server.waited == [BACK_OFF_SECONDS, 2 * BACK_OFF_SECONDS]


def test_two_wishes_have_two_keys():
    with answering(EDIT) as server, server.client() as cloud:
        cloud.request_edit("token", ENVELOPE)
        cloud.request_edit("token", ENVELOPE)
    keys = {headers["Idempotency-Key"] for _, headers, _ in server.asked}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("retry_after", "pause"),
    [
        ("1", 1.0),
        ("0", BACK_OFF_SECONDS),
        ("3600", LONGEST_WAIT_SECONDS),
        ("soon", BACK_OFF_SECONDS),
        ("-5", BACK_OFF_SECONDS),
        ("²", BACK_OFF_SECONDS),
        ("Wed, 21 Oct 2026 07:28:00 GMT", BACK_OFF_SECONDS),
    ],
)
def test_retry_after_is_heeded_up_to_a_limit(retry_after, pause):
    busy = (503, {"Retry-After": retry_after}, b"")
    with answering(busy, EDIT) as server, server.client() as cloud:
        cloud.request_edit("token", ENVELOPE)
    assert server.waited == [pause]


def test_devices_that_were_refused_together_come_back_apart():
    busy = (503, {"Retry-After": "2"}, b"")
    with answering(busy, (502, {}, b""), EDIT) as server, server.client() as cloud:
        server.chance = 0.5
        cloud.request_edit("token", ENVELOPE)
    assert server.waited == [2.5, 2 * BACK_OFF_SECONDS * 1.25], "never sooner than the cloud said"


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_cloud_that_stays_overloaded_counts_as_offline(status):
    with (
        answering((status, {}, b"")) as server,
        server.client() as cloud,
        pytest.raises(OfflineError, match=rf"after {ATTEMPTS} attempts \(status {status}\)"),
    ):
        cloud.request_edit("token", ENVELOPE)
    assert len(server.asked) == ATTEMPTS
    assert len(server.waited) == ATTEMPTS - 1, "no pause after the last attempt"


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500])
def test_a_refusal_is_final_and_keeps_its_code(status):
    refusal = problem(status, code="observation.other_base", detail="Fetch the bundle.")
    with (
        answering(refusal) as server,
        server.client() as cloud,
        pytest.raises(CloudError, match=r"Fetch the bundle\.") as caught,
    ):
        cloud.request_edit("token", ENVELOPE)
    assert caught.value.code == "observation.other_base"
    assert len(server.asked) == 1
    assert not server.waited


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"code": "x"}', b"\xff"])
def test_a_refusal_without_a_problem_document_says_its_status(content):
    with (
        answering((403, {}, content)) as server,
        server.client() as cloud,
        pytest.raises(CloudError, match="status 403 without an explanation") as caught,
    ):
        cloud.enrol()
    assert caught.value.code == "http.error"


@pytest.mark.parametrize("content", [b"<html>", b"[]", b'{"device": "d"}', b"", b"\xff"])
def test_an_enrolment_that_cannot_be_read_is_a_refusal(content):
    """Such as the sign-in page of a hotel's network."""
    with (
        answering((200, {}, content)) as server,
        server.client() as cloud,
        pytest.raises(CloudError, match="did not answer as a Persona cloud") as caught,
    ):
        cloud.enrol()
    assert caught.value.code == "http.error"


def test_enrolling_gives_who_we_are():
    said = (201, {}, json.dumps({"device": "d-1", "token": "t-1"}).encode())
    with answering(said) as server, server.client() as cloud:
        enrolment = cloud.enrol()
    assert (enrolment.device, enrolment.token) == ("d-1", "t-1")
    assert server.asked[0][0] == "/v1/devices"


@pytest.mark.parametrize("said", [{}, {"Persona-Key-Id": "k"}, {"Persona-Signature": "MEUC"}])
def test_what_comes_unsigned_in_place_of_an_edit_is_no_answer_of_a_cloud(said):
    with (
        answering((200, said, b"<html>")) as server,
        server.client() as cloud,
        pytest.raises(CloudError, match="did not answer as a Persona cloud") as caught,
    ):
        cloud.request_edit("token", ENVELOPE)
    assert caught.value.code == "http.error"


@pytest.mark.parametrize(
    "url", ["http:///path", "", "nowhere", "ftp://127.0.0.1", "http://127.0.0.1:99999"]
)
def test_an_address_that_is_none_is_told_so(url):
    with pytest.raises(ValueError, match="is not the address of a cloud"):
        CloudClient(url, "net")
