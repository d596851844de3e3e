"""The API's own description is valid, complete, and true of what is sent and answered."""

import re

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_measurements import measured, report

from persona.formats.observation import Envelope, to_json
from persona_cloud import create_app
from persona_cloud.config import Quotas
from persona_cloud.problems import KINDS


@pytest.fixture(scope="module")
def api(http):
    return http.get("/openapi.json").json()


@pytest.fixture(scope="module")
def fits(api):
    def fits(value, schema):
        root = {"$ref": f"#/components/schemas/{schema}", "components": api["components"]}
        return Draft202012Validator(root).is_valid(value)

    return fits


def test_the_document_is_valid_openapi_3_1(api):
    assert api["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(api).iter_errors()) == []


def test_every_route_is_in_it_and_nothing_else(api, config):
    routes = {
        (re.sub(r"<(?:path:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in create_app(config).url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
        if not rule.rule.startswith("/dashboard")
    }
    described = {(path, method) for path, calls in api["paths"].items() for method in calls}
    assert described == routes
    assert ("/v1/models/{model}/edits", "post") in described


def test_what_is_answered_fits_its_schema(http, phone, observations, fits):
    edit = phone.ask(observations[0], Accept="application/json")
    model = f"/v1/models/{phone.bundle.manifest.model}"
    report(phone, measured())
    for response, schema in (
        (http.post("/v1/devices"), "Enrolled"),
        (http.get("/v1/models"), "Models"),
        (http.get(model), "ModelDetail"),
        (edit, "EditDocument"),
        (http.get("/v1/measurements", headers=phone.authorization), "Measurements"),
        (http.get("/healthz"), "Health"),
        (http.get("/readyz"), "Health"),
        (http.get("/nothing"), "ProblemDocument"),
    ):
        assert fits(response.json(), schema), (schema, response.text)
        assert not fits({}, schema)


def test_the_headers_that_are_sent_are_described(api, phone, observations, other_cloud):
    sent = phone.ask(observations[0])
    described = api["paths"]["/v1/models/{model}/edits"]["post"]["responses"]["200"]["headers"]
    own = {name for name in sent.headers if name.startswith(("persona-", "x-request-"))}
    assert own <= {name.lower() for name in described}
    assert {"etag", "expires"} <= {name.lower() for name in described} & set(sent.headers)
    with other_cloud(quotas=Quotas("1/hour")) as http:
        refused = [http.get("/v1/models") for _ in range(2)][1]
    described = api["paths"]["/v1/models"]["get"]["responses"][str(refused.status_code)]
    assert {"Retry-After", "X-Request-ID"} == set(described["headers"])
    assert {"retry-after", "x-request-id"} <= set(refused.headers)


def test_who_may_ask_is_described(api, http):
    """A route that names a need refuses whoever lacks it; the others do not ask."""
    for path, calls in api["paths"].items():
        for method, call in calls.items():
            status = http.request(method, path.replace("{device}", "any")).status_code
            assert (status == 401) == ("security" in call) or "{model}" in path, (method, path)


def test_an_observation_fits_its_schema_exactly_when_the_cloud_takes_it(phone, observations, fits):
    document = to_json(Envelope(phone.bundle.digest, observations[0]))
    for changed in (
        {},
        {"count": 0},
        {"count": 10**6},
        {"mean": [0.0]},
        {"class_mean": document["class_mean"][:-1]},
        {"class_mean": [row[:-1] for row in document["class_mean"]]},
        {"bundle": "0" * 64},
        {"kind": "items"},
        {"extra": 1},
    ):
        taken = phone.ask_json(observations[0], **changed).status_code == 200
        assert fits(document | changed, "Observation") == taken, changed


def test_a_report_fits_its_schema_exactly_when_the_cloud_takes_it(phone, fits):
    document = measured()
    for changed in (
        {},
        {"extra": 1},
        {"host": document["host"] | {"extra": 1}},
        {"edit_to_active_ms": 2.5},
        {"ratio": None},
    ):
        taken = report(phone, document | changed).status_code == 201
        assert fits(document | changed, "Measurement") == taken, changed


def test_the_page_needs_no_internet_and_names_every_call_and_code(http, api):
    response = http.get("/docs")
    assert response.headers["Content-Type"].startswith("text/html")
    page = response.text
    assert not re.search(r"(src|href|url)\W+https?://", page)
    assert "<script" not in page
    for path, calls in api["paths"].items():
        assert f" {path}</code>" in page
        for call in calls.values():
            assert f'id="{call["operationId"]}"' in page
    for code in KINDS:
        assert f'id="{code}"' in page
