"""Requests made from the API's own description, good and bad, find nothing wrong: all checks.

PERSONA_SLOW=1 makes three times as many.
"""

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable

from persona_cloud import CloudConfig, create_app
from persona_cloud.config import Quotas
from persona_cloud.identity import SCOPES, new_operator_key, new_token
from persona_cloud.service import service_of
from persona_cloud.tables import Device

schemathesis = pytest.importorskip(
    "schemathesis", reason="NOT TESTED: pip install schemathesis to check the API against itself"
)


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


@pytest.mark.parametrize("examples", [100, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
def test_the_api_does_what_it_says(described, secrets, good, examples):
    modes = schemathesis.GenerationMode
    found = []
    for operation in (result.ok() for result in described.get_all_operations()):
        needs = operation.definition.raw.get("security", ())
        shown = [secrets[name] for need in needs for name in need]
        headers = {"Authorization": f"Bearer {shown[0]}"} if shown else {}
        try:
            try_out(operation, modes.POSITIVE if good else modes.NEGATIVE, headers, examples)
        except Unsatisfiable:
            assert not good, operation.label
        except (AssertionError, ExceptionGroup) as error:
            found.append(f"{operation.label}: {error}")
    assert not found, "\n\n".join(found)


def try_out(operation, mode, headers, examples):
    """Send requests for one operation, and check the answers.

    A parameter that is a list of nothing is not sent, and so breaks no schema: it is left out.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode))
    def check(case):
        assume(all(value not in ([], {}) for value in (case.query or {}).values()))
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
