"""Quotas by device and by address; real Redis shares them, and its absence stops nobody."""

import pytest
from cloud_phone import enrol_at, problem
from databases import rows

from persona_cloud.config import Quotas
from persona_cloud.problems import Problem
from persona_cloud.quotas import QuotaKeeper, address_group


def spend(keeper, who="one"):
    keeper.spend(keeper.edits, "edits of a device", who)


def refused(keeper, who="one"):
    try:
        spend(keeper, who)
    except Problem as problem:
        return problem.code == "request.too_many"
    return False


def test_a_device_that_asks_too_often_is_told_when_to_come_again(other_cloud, bundle, observations):
    with other_cloud(quotas=Quotas(edits_per_device="2/hour")) as http:
        greedy, other = enrol_at(http, bundle), enrol_at(http, bundle)
        for _ in range(2):
            greedy.verify(greedy.ask(observations[0]))
        response = greedy.ask(observations[0])
        assert "2 edits of a device" in problem(response, 429, "request.too_many")["detail"]
        assert 1 <= int(response.headers["Retry-After"]) <= 3600
        other.verify(other.ask(observations[0]))


def test_a_refused_edit_takes_no_sequence_number(other_cloud, bundle, observations, url):
    with other_cloud(quotas=Quotas(edits_per_device="1/hour")) as http:
        phone = enrol_at(http, bundle)
        assert [phone.ask(observations[0]).status_code for _ in range(3)] == [200, 429, 429]
    assert rows(url, "SELECT sequence FROM devices") == [(1,)]


def test_an_address_enrols_so_many_and_asks_so_often(other_cloud):
    with other_cloud(quotas=Quotas("5/hour", "2/hour")) as http:
        assert [http.post("/v1/devices").status_code for _ in range(3)] == [201, 201, 429]
        assert [http.get("/v1/models").status_code for _ in range(3)] == [200, 200, 429]
        assert http.get("/healthz").status_code == http.get("/readyz").status_code == 200


def test_an_unreadable_quota_is_refused_at_the_start():
    with pytest.raises(ValueError, match="often"):
        QuotaKeeper(Quotas(edits_per_device="often"))


@pytest.mark.parametrize(
    ("address", "group"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", "unknown"),
        (None, "unknown"),
    ],
)
def test_who_counts_as_one_address(address, group):
    assert address_group(address) == group


def test_processes_share_their_counts_through_redis(redis_server):
    address, _ = redis_server
    one, other = (QuotaKeeper(Quotas(edits_per_device="3/hour", storage=address)) for _ in "ab")
    for keeper in (one, other, one):
        spend(keeper)
    assert refused(one)
    assert refused(other)
    assert not refused(other, "two")


def test_while_redis_is_gone_each_process_counts_for_itself(redis_server):
    address, server = redis_server
    keeper = QuotaKeeper(Quotas(edits_per_device="2/hour", storage=address))
    spend(keeper)
    server.kill()
    server.wait()
    spend(keeper)
    spend(keeper)
    assert refused(keeper)
