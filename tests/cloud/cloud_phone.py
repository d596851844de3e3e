"""What stands for a device in these tests, and what every refusal must look like."""

from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from persona.bundles import Bundle
from persona.formats.edit import Edit
from persona.formats.observation import (
    MEDIA_TYPE_SAFETENSORS,
    Envelope,
    Observation,
    to_json,
    to_safetensors,
)
from persona.formats.verify import verify_edit
from persona.signing import read_signature
from persona_cloud.problems import KINDS
from persona_cloud.problems import MEDIA_TYPE as PROBLEM


@dataclass(frozen=True)
class Phone:
    """A device in a test: enrolled, with an HTTP client and what it knows of its bundle."""

    http: httpx.Client
    bundle: Bundle
    device: str
    token: str

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def edits(self) -> str:
        return f"/v1/models/{self.bundle.manifest.model}/edits"

    def ask(self, observation: Observation, **headers: str) -> httpx.Response:
        """Send an observation as phones do."""
        sent = {"Content-Type": MEDIA_TYPE_SAFETENSORS, **self.authorization, **headers}
        data = to_safetensors(Envelope(self.bundle.digest, observation))
        return self.http.post(self.edits, content=data, headers=sent)

    def ask_json(self, observation: Observation, **changed: object) -> httpx.Response:
        """Send an observation as JSON, with fields changed."""
        document = to_json(Envelope(self.bundle.digest, observation)) | changed
        return self.http.post(self.edits, json=document, headers=self.authorization)

    def verify(self, response: httpx.Response, sequence: int = 0) -> Edit:
        """The edit of an answer, verified as a device does that had `sequence` before."""
        assert response.status_code == 200, response.text
        said = response.headers
        signature = read_signature(said["Persona-Key-Id"], said["Persona-Signature"])
        expected = self.bundle.expectation(self.device, sequence)
        return verify_edit(
            response.content, signature, self.bundle.edit_keys(), expected, datetime.now(UTC)
        )


def enrol_at(http: httpx.Client, bundle: Bundle) -> Phone:
    said = http.post("/v1/devices").json()
    return Phone(http, bundle, said["device"], said["token"])


def problem(response: httpx.Response, status: int, code: str) -> dict[str, object]:
    """The problem document of an answer, having checked what all of them must hold."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, PROBLEM)
    document = response.json()
    assert (document["status"], document["code"]) == (status, code)
    assert document["type"] == f"/docs#{code}"
    assert document["detail"].endswith(KINDS[code].next_step)
    assert "Traceback" not in response.text
    return document
