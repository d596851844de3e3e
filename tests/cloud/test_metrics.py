"""What Prometheus is told is what happened."""

import pytest
from cloud_phone import enrol_at, problem
from prometheus_client.parser import text_string_to_metric_families

from persona_cloud.identity import new_operator_key
from persona_cloud.store import Store


@pytest.fixture
def scrape(url):
    """The samples of a cloud by name and labels."""

    def scrape(http):
        secret, key = new_operator_key("prometheus", ["metrics"])
        Store(url).add_operator_key(key)
        response = http.get("/metrics", headers={"Authorization": f"Bearer {secret}"})
        assert response.headers["Content-Type"].startswith("text/plain")
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    return scrape


def test_requests_edits_and_refusals_are_counted(other_cloud, bundle, observations, scrape):
    with other_cloud() as http:
        phone = enrol_at(http, bundle)
        edits = [phone.verify(phone.ask(o, **{"Idempotency-Key": "k"})) for o in observations[:1]]
        edits += [phone.verify(phone.ask(o)) for o in observations[1:5]]
        phone.ask(observations[0], **{"Idempotency-Key": "k"})
        problem(http.get("/metrics"), 401, "operator.missing")
        found = scrape(http)
    route = "/v1/models/<model>/edits"
    assert found["persona_requests_total", *sorted(("POST", "/v1/devices", "201"))] == 1
    assert found["persona_requests_total", *sorted(("POST", route, "200"))] == 6
    assert found["persona_problems_total", "operator.missing"] == 1
    for prototype in {edit.info.prototype for edit in edits}:
        expected = sum(edit.info.prototype == prototype for edit in edits)
        assert found["persona_edits_total", str(prototype).lower()] == expected
    assert found["persona_batch_size_sum",] == found["persona_adapter_seconds_count",] == 5
    assert found["persona_edits_waiting",] == 0
    assert found["persona_request_seconds_count", route] == 6
    assert 0 < found["persona_adapter_seconds_sum",] < found["persona_request_seconds_sum", route]
