"""Devices report what they measured, and the reports can be found again."""

import pytest
from cloud_phone import problem

from persona.formats.measurement import Host, Latency, Measurement


def measured(target="xnnpack", **changes):
    latency = Latency(50, 10, 100.0, 120.0, 150.0, 105.0)
    host = Host("Android 15", "a phone", 8, 4, "nominal")
    document = Measurement(
        format="persona.measurement/1",
        model="tiny",
        bundle="0" * 64,
        target=target,
        precision="fp32",
        delegates=("XnnpackBackend",),
        host=host,
        base=latency,
        edited=latency,
        ratio=1.0,
        load_ms=3.0,
        edit_to_active_ms=None,
    ).to_json()
    return document | changes


def report(phone, document):
    return phone.http.post("/v1/measurements", json=document, headers=phone.authorization)


def listed(phone, **query):
    response = phone.http.get("/v1/measurements", params=query, headers=phone.authorization)
    assert response.status_code == 200, response.text
    return response.json()["measurements"]


def test_a_report_comes_back_as_it_was_sent(phone):
    sent = measured(model="as-sent")
    received = report(phone, sent)
    assert received.status_code == 201
    (entry,) = listed(phone, model="as-sent")
    assert entry["measurement"] == sent
    assert entry["id"] == received.json()["id"]


def test_the_list_is_filtered_and_the_newest_come_first(phone):
    for target in ("coreml", "vulkan", "vulkan"):
        report(phone, measured(target, model="filtered"))
    ids = [entry["id"] for entry in listed(phone, model="filtered")]
    assert ids == sorted(ids, reverse=True)
    assert [len(listed(phone, model="filtered", target=t)) for t in ("coreml", "vulkan")] == [1, 2]
    assert listed(phone, model="filtered", precision="int8") == []


def test_the_list_is_read_page_by_page(phone):
    for _ in range(3):
        report(phone, measured(model="paged"))
    first = listed(phone, model="paged", limit=2)
    second = listed(phone, model="paged", limit=2, before=first[-1]["id"])
    assert (len(first), len(second)) == (2, 1)
    assert len({entry["id"] for entry in first + second}) == 3


def test_which_device_measured_is_not_told(enrol):
    mine, theirs = enrol(), enrol()
    report(mine, measured(model="whose"))
    (entry,) = listed(theirs, model="whose")
    assert mine.device not in str(entry)


@pytest.mark.parametrize(
    "changes",
    [{"format": "persona.measurement/2"}, {"ratio": "fast"}, {"base": None}, {"note": "hello"}],
)
def test_a_wrong_report_is_refused_by_its_field(phone, changes):
    document = problem(report(phone, measured(**changes)), 422, "request.invalid")
    assert next(iter(changes)) in document["detail"]


@pytest.mark.parametrize(
    "query", [{"color": "red"}, {"limit": "0x"}, {"limit": "0"}, {"before": "-1"}]
)
def test_a_wrong_query_is_refused(phone, query):
    response = phone.http.get("/v1/measurements", params=query, headers=phone.authorization)
    assert next(iter(query)) in problem(response, 400, "request.query")["detail"]


def test_reports_need_a_token(http):
    problem(http.post("/v1/measurements", json=measured()), 401, "token.missing")
    problem(http.get("/v1/measurements"), 401, "token.missing")
