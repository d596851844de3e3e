"""Requests made from the API's own description, good and bad, find nothing wrong: all checks.

PERSONA_EXAMPLES sets how many requests a call gets at most.
"""

import os
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from persona_cloud import CloudConfig, create_app
from persona_cloud.config import Quotas
from persona_cloud.identity import SCOPES, new_operator_key, new_token
from persona_cloud.service import service_of
from persona_cloud.tables import Device

schemathesis = pytest.importorskip(
    "schemathesis", reason="NOT TESTED: pip install schemathesis to check the API against itself"
)

EXAMPLES = int(os.environ.get("PERSONA_EXAMPLES", "15"))


@pytest.fixture(scope="module")
def app(run, bundle, tmp_path_factory):
    """The cloud on SQLite; the database is not what is tested here."""
    url = f"sqlite:///{tmp_path_factory.mktemp('schemathesis') / 'cloud.sqlite'}"
    quotas = Quotas(None, None, None)
    return create_app(CloudConfig(run.path, bundle.path, url, quotas=quotas))


@pytest.fixture(scope="module")
def secrets(app):
    """What each scheme of the description wants: a device's token, an operator's key."""
    service = service_of(app)
    token, stored = new_token("device", service.config.token_lifetime)
    service.store.enrol(Device("device", "other", datetime.now(UTC)), stored)
    key, operator = new_operator_key("schemathesis", list(SCOPES))
    service.store.add_operator_key(operator)
    return {"device-token": token, "operator-key": key}


@pytest.fixture(scope="module")
def described(app):
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_the_api_does_what_it_says(described, secrets, good):
    modes = schemathesis.GenerationMode
    found = []
    for operation in (result.ok() for result in described.get_all_operations()):
        needs = operation.definition.raw.get("security", ())
        shown = [secrets[name] for need in needs for name in need]
        headers = {"Authorization": f"Bearer {shown[0]}"} if shown else {}
        try:
            try_out(operation, modes.POSITIVE if good else modes.NEGATIVE, headers)
        except Unsatisfiable:
            assert not good, operation.label
        except (AssertionError, ExceptionGroup) as error:
            found.append(f"{operation.label}: {error}")
    assert not found, "\n\n".join(found)


def try_out(operation, mode, headers):
    """Send requests for one operation, and check the answers."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case):
        plain = written_plainly(case.body)
        if repr(plain) != repr(case.body):
            case.body = plain
        case.call_and_validate(headers=headers)

    check()


def written_plainly(value):
    """3.0 as 3: a JSON schema cannot tell them apart, and the contract takes one of them only."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [written_plainly(element) for element in value]
    if isinstance(value, dict):
        return {key: written_plainly(element) for key, element in value.items()}
    return value
