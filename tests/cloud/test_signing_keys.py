"""Keys that sign come and go; devices learn of it, and old edits are good until they expire."""

import json
import shutil
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from click.testing import CliRunner
from cloud_phone import enrol_at, problem
from tiny_run import make_bundle, make_run

from persona.cli import main
from persona.device.client import CloudClient
from persona.device.learned_keys import LearnedKeys
from persona.formats.errors import Code, FormatError
from persona.formats.keys import KeyDocument, TrustedEditKey, encode_keys
from persona.formats.verify import verify_edit
from persona.runs import load_run
from persona.signing import read_public_key, read_signature
from persona_cloud import create_app
from persona_cloud.serving import running

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def own_run(tmp_path_factory):
    """A run whose keys these tests may change."""
    return make_run(tmp_path_factory.mktemp("keys") / "tiny")


@pytest.fixture
def own(own_run, tmp_path):
    """A fresh copy of the run with its first keys, and its bundle."""
    shutil.copytree(own_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("keys"))
    run = load_run(tmp_path / "run")
    return run, make_bundle(run, tmp_path / "bundle")


@pytest.fixture
def cli(own, url):
    """`persona operator signing-key` on the cloud's database."""

    def invoke(command, *arguments, code=0):
        given = ["operator", "signing-key", command, str(own[0].path), *arguments]
        result = CliRunner().invoke(main, [*given, "--database", url, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return invoke


@pytest.fixture
def cloud(own, config, url):
    run, bundle = own

    @contextmanager
    def start():
        app = create_app(replace(config, run=run.path, bundle=bundle.path, database_url=url))
        with running(app) as address, httpx.Client(base_url=address, timeout=60) as http:
            yield http

    return start


@pytest.fixture
def device(own, tmp_path):
    """What a device knows of keys: those that its app pins and its bundle names, to begin with."""
    run, bundle = own

    def make(name="device"):
        (tmp_path / name).mkdir(exist_ok=True)
        return LearnedKeys(tmp_path / name, bundle, [run.bundle_key().public])

    return make


@contextmanager
def client(http, bundle):
    with CloudClient(str(http.base_url), bundle.manifest.model) as talking:
        yield talking


def verified(phone, response, keys, now=None):
    """The edit of an answer, verified with the keys that a device has learned."""
    said, now = response.headers, now or datetime.now(UTC)
    signature = read_signature(said["Persona-Key-Id"], said["Persona-Signature"])
    expected = phone.bundle.expectation(phone.device, 0)
    return verify_edit(response.content, signature, keys.edit_keys(now), expected, now)


def refused(phone, response, keys, now=None):
    with pytest.raises(FormatError) as error:
        verified(phone, response, keys, now)
    return error.value.code


def test_without_a_change_there_is_no_document_and_nothing_to_learn(cloud, own, device, cli):
    with cloud() as http:
        problem(http.get("/v1/keys"), 404, "keys.none")
        keys = device()
        with client(http, own[1]) as talking:
            keys.catch_up(talking, datetime.now(UTC))
    assert keys.sequence == 0
    assert [key["state"] for key in cli("list")["keys"]] == ["signs", "signs"]


def test_a_rotated_key_signs_at_once_and_the_old_edit_is_good_until_it_expires(
    cloud, own, device, cli, observations
):
    old = own[0].edit_key().id
    with cloud() as http:
        phone, keys = enrol_at(http, own[1]), device()
        before = phone.ask(observations[0])
        assert before.headers["Persona-Keys"] == "0"
        new = cli("add", "--role", "edit")["id"]
        until = cli("retire", old)["until"]
        wait_for_workers()
        after = phone.ask(observations[0])
        assert (before.headers["Persona-Key-Id"], after.headers["Persona-Key-Id"]) == (old, new)
        assert after.headers["Persona-Keys"] == "2"
        assert refused(phone, after, keys) == Code.UNKNOWN_KEY
        with client(http, own[1]) as talking:
            keys.catch_up(talking, datetime.now(UTC))
        edit = verified(phone, after, keys)
        verified(phone, before, keys)
    end = datetime.fromisoformat(until)
    assert end > edit.info.expires_at
    assert refused(phone, before, keys, end - timedelta(seconds=1)) == Code.EXPIRED
    assert refused(phone, before, keys, end) == Code.UNKNOWN_KEY
    assert device().sequence == 2, "what was learned is there after a restart"


def wait_for_workers():
    """Longer than a process goes on with what it knows of keys."""
    time.sleep(1.1)


def test_a_revoked_key_is_refused_and_its_kept_answers_are_not_given_again(
    cloud, own, device, cli, observations
):
    stolen = own[0].edit_key().id
    with cloud() as http:
        phone, keys = enrol_at(http, own[1]), device()
        before = phone.ask(observations[0], **{"Idempotency-Key": "a"})
        cli("add", "--role", "edit")
        cli("revoke", stolen)
        wait_for_workers()
        with client(http, own[1]) as talking:
            keys.catch_up(talking, datetime.now(UTC))
        assert refused(phone, before, keys) == Code.UNKNOWN_KEY
        again = phone.ask(observations[0], **{"Idempotency-Key": "a"})
        assert verified(phone, again, keys).info.sequence == 2


def test_a_device_that_missed_documents_goes_through_them_to_a_publisher_it_never_met(
    cloud, own, device, cli
):
    first = own[0].bundle_key().id
    cli("add", "--role", "bundle")
    cli("revoke", first)
    cli("add", "--role", "edit")
    with cloud() as http:
        newest = http.get("/v1/keys")
        assert newest.headers["Persona-Key-Id"] != first
        keys = device()
        signature = read_signature(
            newest.headers["Persona-Key-Id"], newest.headers["Persona-Signature"]
        )
        with pytest.raises(FormatError) as unknown:
            keys.learn(newest.content, signature, datetime.now(UTC))
        assert unknown.value.code == Code.KEYS_UNKNOWN_KEY
        with client(http, own[1]) as talking:
            keys.catch_up(talking, datetime.now(UTC))
    assert keys.sequence == 3
    assert keys.bundle_keys().knows(newest.headers["Persona-Key-Id"])
    assert not keys.bundle_keys().knows(first)


def test_a_thief_of_the_edit_key_cannot_name_keys(own, device):
    run = own[0]
    mine = {run.edit_key().id: TrustedEditKey(run.edit_key().public, None)}
    data = encode_keys(KeyDocument(9, NOW, mine, {run.bundle_key().id: run.bundle_key().public}))
    with pytest.raises(FormatError) as error:
        device().learn(data, run.edit_key().sign(data), NOW)
    assert error.value.code == Code.KEYS_UNKNOWN_KEY


def test_an_app_with_other_pins_forgets_what_was_learned(cloud, own, device, cli, tmp_path):
    cli("add", "--role", "edit")
    with cloud() as http, client(http, own[1]) as talking:
        keys = device()
        keys.catch_up(talking, datetime.now(UTC))
    assert device().sequence == 1
    other = LearnedKeys(tmp_path / "device", own[1], [own[0].edit_key().public])
    assert other.sequence == 0


def test_the_device_of_the_command_line_learns_from_the_publisher_that_it_pins(
    digits_run, digits_bundle, config, url, tmp_path
):
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    shutil.copytree(digits_run.path, run)
    shutil.copytree(digits_bundle.path, bundle)
    stored = json.loads((bundle / "manifest.sig").read_text())
    del stored["public_key"]
    (bundle / "manifest.sig").write_text(json.dumps(stored))
    publisher = run / "keys" / "bundles.pem.pub"
    adding = ["operator", "signing-key", "add", str(run), "--role", "edit", "--database", url]
    assert CliRunner().invoke(main, adding).exit_code == 0

    app = create_app(replace(config, run=run, bundle=digits_bundle.path, database_url=url))
    with running(app) as address:
        command = ["device", str(bundle), "--cloud", address, "--trust", str(publisher)]
        result = CliRunner().invoke(main, [*command, "--folder", str(tmp_path / "phone")])
    assert result.exit_code == 0, result.output
    pinned = [read_public_key(publisher)]
    assert LearnedKeys(tmp_path / "phone", digits_bundle, pinned).sequence == 1


def test_a_damaged_file_of_learned_keys_counts_as_none(device, cloud, own, cli, tmp_path):
    cli("add", "--role", "edit")
    with cloud() as http, client(http, own[1]) as talking:
        device().catch_up(talking, datetime.now(UTC))
    file = tmp_path / "device" / "keys.json"
    file.write_bytes(file.read_bytes()[:-9])
    assert device().sequence == 0


@pytest.mark.parametrize("command", ["retire", "revoke"])
def test_the_last_key_of_a_role_stays(cli, own, command):
    document = cli(command, own[0].edit_key().id, code=2)
    assert "add another first" in document["error"]["message"]
    assert cli("list")["document"] == 0


def test_a_bundle_key_is_not_retired_but_revoked_when_nothing_needs_it(cli, own):
    document = cli("retire", own[0].bundle_key().id, code=2)
    assert "then revoke" in document["error"]["message"]


def test_a_key_that_there_is_not_is_named(cli):
    assert "no trusted key 'nobody'" in cli("revoke", "nobody", code=2)["error"]["message"]


def test_no_document_is_made_without_a_key_that_devices_trust_to_sign_it(cli, own):
    (own[0].path / "keys" / "bundles.pem").rename(own[0].path / "elsewhere.pem")
    before = {path.name for path in (own[0].path / "keys").glob("edit-*")}
    document = cli("add", "--role", "edit", code=2)
    assert "to sign key documents; put one there" in document["error"]["message"]
    assert {path.name for path in (own[0].path / "keys").glob("edit-*")} == before


def test_a_server_without_the_private_key_is_not_ready(cloud, own, cli):
    cli("add", "--role", "edit")
    cli("revoke", own[0].edit_key().id)
    files = list((own[0].path / "keys").glob("edit-*"))
    with cloud() as http:
        assert http.get("/readyz").status_code == 200
    for file in files:
        file.unlink()
    with cloud() as http:
        problem(http.get("/readyz"), 503, "server.key")
        assert http.get("/healthz").status_code == 200
