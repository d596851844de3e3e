"""While the database is gone nobody is told anything wrong; when it is back, things go on."""

from contextlib import ExitStack

import httpx
from cloud_phone import enrol_at, problem
from load import ready, until
from servers import free_port, postgresql

from persona_cloud import CloudConfig, create_app
from persona_cloud.serving import running


def test_a_database_that_goes_and_comes_back_costs_nothing_but_time(
    run, bundle, observations, postgresql_folder
):
    port, key = free_port(), {"Idempotency-Key": "before"}
    with ExitStack() as cloud:
        with postgresql(postgresql_folder, port) as url:
            app = create_app(CloudConfig(run.path, bundle.path, url))
            address = cloud.enter_context(running(app))
            http = cloud.enter_context(httpx.Client(base_url=address, timeout=30))
            phone = enrol_at(http, bundle)
            before = phone.ask(observations[0], **key)
            assert http.get("/readyz").status_code == 200
        for _ in range(2):
            refused = phone.ask(observations[1])
            problem(refused, 503, "server.store")
            assert refused.headers["Retry-After"] == "1"
            problem(http.get("/readyz"), 503, "server.store")
            assert http.get("/healthz").status_code == 200
        with postgresql(postgresql_folder, port):
            until(lambda: ready(http))
            assert phone.ask(observations[0], **key).content == before.content
            assert phone.verify(phone.ask(observations[1])).info.sequence == 2
