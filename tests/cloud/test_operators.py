"""`persona operator` makes, lists and revokes keys in the database that the cloud uses."""

import json
from dataclasses import replace

import httpx
import pytest
from click.testing import CliRunner
from cloud_phone import problem

from persona.cli import main
from persona_cloud import create_app
from persona_cloud.serving import running


@pytest.fixture
def operator(run, url):
    def invoke(command, *arguments, code=0):
        given = ["operator", command, str(run.path), *arguments, "--database", url, "--json"]
        result = CliRunner().invoke(main, given)
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return invoke


def test_a_key_made_on_the_command_line_works_until_it_is_revoked(config, url, operator):
    made = operator("add", "--name", "prometheus", "--scope", "metrics")
    headers = {"Authorization": f"Bearer {made['key']}"}
    with (
        running(create_app(replace(config, database_url=url))) as address,
        httpx.Client(base_url=address, headers=headers) as http,
    ):
        assert http.get("/metrics").status_code == 200
        problem(http.delete("/v1/devices/any"), 403, "operator.scope")
        operator("revoke", made["id"])
        problem(http.get("/metrics"), 401, "operator.unknown")


def test_the_list_tells_everything_but_the_keys(operator):
    made = [
        operator("add", "--name", "a", "--scope", "devices", "--scope", "metrics"),
        operator("add", "--name", "b", "--scope", "metrics"),
    ]
    operator("revoke", made[1]["id"])
    listed = operator("list")["keys"]
    assert [(key["id"], key["name"], key["scopes"]) for key in listed] == [
        (made[0]["id"], "a", ["devices", "metrics"]),
        (made[1]["id"], "b", ["metrics"]),
    ]
    assert [key["revoked_at"] is None for key in listed] == [True, False]
    assert not any(key["key"] in json.dumps(listed) for key in made)


def test_a_key_that_there_is_not_cannot_be_revoked(operator):
    assert operator("revoke", "nobody", code=1)["error"]["code"] == "operator.unknown"
