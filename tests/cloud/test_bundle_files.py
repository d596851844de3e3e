"""A device fetches a bundle file by file, goes on where it stopped, and nothing else comes out."""

import http.client

import pytest
from cloud_phone import problem

from persona.bundles import open_bundle


@pytest.fixture
def place(bundle):
    return f"/v1/models/{bundle.manifest.model}/bundle"


def test_a_fetched_bundle_is_the_bundle(http, bundle, place, tmp_path):
    files = http.get(f"/v1/models/{bundle.manifest.model}").json()["files"]
    for name in ("manifest.json", "manifest.sig", *files):
        (tmp_path / name).write_bytes(http.get(f"{place}/{name}").content)
    (named,) = http.get("/v1/models").json()["models"]
    assert open_bundle(tmp_path).digest == bundle.digest == named["bundle"]


def test_an_interrupted_fetch_goes_on(http, place):
    whole = http.get(f"{place}/golden.safetensors")
    head = http.get(f"{place}/golden.safetensors", headers={"Range": "bytes=0-99"})
    rest = http.get(
        f"{place}/golden.safetensors",
        headers={"Range": "bytes=100-", "If-Range": whole.headers["ETag"]},
    )
    assert (head.status_code, rest.status_code) == (206, 206)
    assert head.headers["Content-Range"] == f"bytes 0-99/{len(whole.content)}"
    assert head.content + rest.content == whole.content


def test_a_range_of_another_version_gives_the_whole_file(http, place):
    headers = {"Range": "bytes=100-", "If-Range": '"another"'}
    assert http.get(f"{place}/golden.safetensors", headers=headers).status_code == 200


def test_what_a_device_has_is_not_sent_again(http, bundle, place):
    for name in ("manifest.json", "manifest.sig", "base.safetensors"):
        etag = http.get(f"{place}/{name}").headers["ETag"]
        again = http.get(f"{place}/{name}", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
    assert http.head(f"{place}/manifest.json").headers["ETag"] == f'"{bundle.digest}"'


def test_a_range_outside_the_file_is_told_its_size(http, bundle, place):
    size = bundle.manifest.files["base.safetensors"].size
    headers = {"Range": f"bytes={size}-"}
    response = http.get(f"{place}/base.safetensors", headers=headers)
    problem(response, 416, "request.range")
    assert response.headers["Content-Range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2frun.json",
        "../../../../runs/tiny/run.json",
        "%2e%2e/%2e%2e/keys/edits.pem",
        "./manifest.json",
        "..%5crun.json",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "base.safetensors%00",
        "BASE.safetensors",
        "unlisted.txt",
        "",
    ],
)
def test_only_files_of_the_manifest_can_be_fetched(http, bundle, place, name):
    (bundle.path / "unlisted.txt").write_text("not for devices")
    connection = client(http)
    connection.request("GET", f"{place}/{name}")
    response = connection.getresponse()
    body = response.read()
    (bundle.path / "unlisted.txt").unlink()
    assert response.status == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert b"PRIVATE" not in body
    assert b"root:" not in body


def client(http_client):
    """A client that sends paths as they are; httpx would tidy them."""
    return http.client.HTTPConnection(http_client.base_url.host, http_client.base_url.port)
