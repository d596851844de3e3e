"""Attacks on memory, on quotas, and on the line between two requests."""

import gzip
import io

import pytest
from cloud_phone import problem
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser

from persona_cloud import create_app
from persona_cloud.config import Quotas


def test_a_made_up_forwarding_header_hides_nobody(other_cloud):
    with other_cloud(quotas=Quotas("2/hour")) as http:
        answers = [
            http.get("/v1/models", headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(3)
        ]
    assert [answer.status_code for answer in answers] == [200, 200, 429]


def test_behind_a_proxy_only_what_the_proxy_added_counts(other_cloud):
    with other_cloud(quotas=Quotas("2/hour"), proxies=1) as http:
        said = [f"198.51.100.{n}, 192.0.2.1" for n in range(3)] + ["198.51.100.1, 192.0.2.2"]
        answers = [http.get("/v1/models", headers={"X-Forwarded-For": text}) for text in said]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 200]


def test_a_compressed_bomb_is_not_unpacked(phone):
    bomb = gzip.compress(b" " * 50_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = phone.http.post(phone.edits, content=bomb, headers=headers | phone.authorization)
    assert len(bomb) < phone.bundle.manifest.max_observation_bytes
    problem(response, 422, "observation.invalid")


class Endless(io.RawIOBase):
    """A body that never ends; counts what is read of it."""

    read_bytes = 0

    def readable(self):
        return True

    def readinto(self, buffer):
        buffer[:] = b"[" * len(buffer)
        self.read_bytes += len(buffer)
        return len(buffer)


def test_of_a_body_without_end_no_more_is_read_than_fits(phone, config):
    limit, stream = phone.bundle.manifest.max_observation_bytes, Endless()
    response = (
        create_app(config)
        .test_client()
        .post(
            phone.edits,
            headers={"Content-Type": "application/json", **phone.authorization},
            environ_overrides={"wsgi.input": stream, "wsgi.input_terminated": True},
        )
    )
    assert (response.status_code, response.json["code"]) == (413, "request.too_large")
    assert limit < stream.read_bytes < 2 * limit


def test_deeply_nested_json_is_refused(phone):
    for opening in (b"[", b'{"a":'):
        headers = {"Content-Type": "application/json", **phone.authorization}
        data = opening * (phone.bundle.manifest.max_observation_bytes // len(opening))
        problem(
            phone.http.post(phone.edits, content=data, headers=headers), 422, "observation.invalid"
        )


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding:\x0bchunked\r\n",
        b"Content-Length : 5\r\n",
    ],
)
def test_a_request_cannot_hide_another_in_its_body(head):
    sent = b"POST /v1/devices HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n0\r\n\r\nGET / HTTP/1.1\r\n"
    with pytest.raises(ParseException):
        next(RequestParser(Config(), iter([sent]), ("127.0.0.1", 1)))
