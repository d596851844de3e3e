"""The device's side of the cloud's API: enrol, ask for edits, keys and versions; safe retries.

A request that failed on the way is repeated with the same idempotency key, so the cloud answers
with the same edit instead of making another.
"""

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import quote

import httpx

from persona.formats.edit import MEDIA_TYPE
from persona.formats.observation import MEDIA_TYPE_SAFETENSORS, Envelope, to_safetensors
from persona.formats.verify import Signature
from persona.signing import read_signature

ATTEMPTS = 3
BACK_OFF_SECONDS = 0.2
TIMEOUT_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 5.0


class CloudError(RuntimeError):
    """The cloud refused: `code` is stable, the message says what to do.

    bundle: digest of the version that the cloud wants, where it refused the one that we have.
    """

    def __init__(self, code: str, message: str, bundle: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.bundle = bundle


class OfflineError(RuntimeError):
    """The cloud cannot be reached, or is overloaded, after all attempts."""


class AddressError(ValueError):
    """A text that is not the address of a cloud."""


@dataclass(frozen=True)
class Enrolment:
    """Who the cloud says that we are."""

    device: str
    token: str


@dataclass(frozen=True)
class SignedEdit:
    """An edit as it came: not yet verified.

    wanted: digest of the version that the cloud wants this device to have. keys: sequence of the
    cloud's newest key document.
    """

    data: bytes
    signature: Signature
    wanted: str | None = None
    keys: int = 0


@dataclass(frozen=True)
class SignedKeys:
    """A key document as it came: not yet verified."""

    data: bytes
    signature: Signature


class CloudClient:
    """Talks to one cloud adapter about one model. Close it, or use it as a context manager."""

    def __init__(
        self,
        url: str,
        model: str,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """Raises AddressError where `url` is not http:// or https:// with a host."""
        self.model = model
        self._sleep, self._chance = sleep, chance
        self._http = httpx.Client(base_url=_address(url), timeout=TIMEOUT_SECONDS)

    def __enter__(self) -> "CloudClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def enrol(self) -> Enrolment:
        """Become a device. Raises OfflineError or CloudError."""
        response = self._send("POST", "/v1/devices", json={"platform": "other"})
        try:
            document = response.json()
            return Enrolment(str(document["device"]), str(document["token"]))
        except (ValueError, KeyError, TypeError):
            raise self._not_a_cloud() from None

    def renew(self, enrolment: Enrolment) -> Enrolment:
        """Another token for the same device. Raises OfflineError or CloudError."""
        response = self._send(
            "POST",
            f"/v1/devices/{quote(enrolment.device, safe='')}/token",
            headers={"Authorization": f"Bearer {enrolment.token}"},
        )
        try:
            return replace(enrolment, token=str(response.json()["token"]))
        except (ValueError, KeyError, TypeError):
            raise self._not_a_cloud() from None

    def _not_a_cloud(self) -> CloudError:
        return CloudError(
            "http.error",
            f"{self._http.base_url} did not answer as a Persona cloud does; check the address, "
            "and whether the network wants a sign-in",
        )

    def _signature(self, response: httpx.Response) -> Signature:
        said = response.headers
        if "Persona-Key-Id" not in said or "Persona-Signature" not in said:
            raise self._not_a_cloud()
        return read_signature(said["Persona-Key-Id"], said["Persona-Signature"])

    def request_edit(self, token: str, envelope: Envelope) -> SignedEdit:
        """Send an observation, get an edit. Raises OfflineError or CloudError."""
        response = self._send(
            "POST",
            f"/v1/models/{self.model}/edits",
            content=to_safetensors(envelope),
            headers={
                "Authorization": f"Bearer {token}",
                "Content-Type": MEDIA_TYPE_SAFETENSORS,
                "Accept": MEDIA_TYPE,
                "Idempotency-Key": str(uuid.uuid4()),
            },
        )
        said = response.headers
        keys = said.get("Persona-Keys", "")
        return SignedEdit(
            response.content,
            self._signature(response),
            said.get("Persona-Bundle"),
            int(keys) if keys.isascii() and keys.isdigit() else 0,
        )

    def keys(self, sequence: int | None = None) -> SignedKeys | None:
        """A key document, the newest unless a number is named; None where there is none.

        Raises OfflineError or CloudError.
        """
        try:
            response = self._send("GET", "/v1/keys" if sequence is None else f"/v1/keys/{sequence}")
        except CloudError as error:
            if error.code == "keys.none":
                return None
            raise
        return SignedKeys(response.content, self._signature(response))

    def file(self, version: str, name: str) -> bytes:
        """A file of a version's bundle, not yet verified. Raises OfflineError or CloudError."""
        place = f"/v1/models/{self.model}/versions/{quote(version, safe='')}/bundle"
        return self._send("GET", f"{place}/{quote(name)}").content

    def report(self, token: str, version: str, outcome: str) -> None:
        """Tell what came of a version: `ok`, or a code. Raises OfflineError or CloudError."""
        self._send(
            "POST",
            f"/v1/models/{self.model}/outcomes",
            json={"bundle": version, "outcome": outcome},
            headers={"Authorization": f"Bearer {token}"},
        )

    def _send(self, method: str, path: str, **request: object) -> httpx.Response:
        """Send, and again after a pause where the network or an overloaded cloud was at fault.

        The pause is up to half longer than it must be, by chance, so that devices that were refused
        together do not come back together.
        """
        reason = ""
        for attempt in range(ATTEMPTS):
            pause = BACK_OFF_SECONDS * 2**attempt
            try:
                response = self._http.request(method, path, **request)  # type: ignore[arg-type]
            except httpx.RequestError as error:
                reason = str(error) or type(error).__name__
            else:
                if response.is_success:
                    return response
                if response.status_code not in (429, 502, 503, 504):
                    raise _refusal(response)
                reason = f"status {response.status_code}"
                pause = max(pause, _retry_after(response))
            if attempt < ATTEMPTS - 1:
                self._sleep(pause * (1 + self._chance() / 2))
        raise OfflineError(
            f"{self._http.base_url} did not answer after {ATTEMPTS} attempts ({reason})"
        )


def _retry_after(response: httpx.Response) -> float:
    text = response.headers.get("Retry-After", "")
    seconds = text.isascii() and text.isdigit()
    return min(float(text), LONGEST_WAIT_SECONDS) if seconds else 0.0


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    known = address.scheme in ("http", "https") and address.host
    if not known or (address.port or 0) > 65_535:
        raise AddressError(
            f"{url!r} is not the address of a cloud; expected one such as http://127.0.0.1:8080"
        )
    return address


def _refusal(response: httpx.Response) -> CloudError:
    try:
        problem = response.json()
        bundle = problem.get("bundle")
        named = bundle if isinstance(bundle, str) else None
        return CloudError(str(problem["code"]), str(problem["detail"]), named)
    except (ValueError, KeyError, TypeError, AttributeError):
        return CloudError("http.error", f"status {response.status_code} without an explanation")
