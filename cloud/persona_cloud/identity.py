"""Who asks: devices by short-lived tokens, operators by keys. Only digests of either are stored."""

import hashlib
import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from flask import g, request

from persona.formats.edit import format_time
from persona_cloud.problems import Problem
from persona_cloud.service import service
from persona_cloud.store import ShownToken
from persona_cloud.tables import DeviceToken, OperatorKey

Scope = Literal["dashboard", "devices", "metrics", "models"]
"""What an operator's key may allow: looking at the dashboard, revoking devices, reading /metrics,
publishing versions and rolling them out."""

SCOPES: tuple[Scope, ...] = get_args(Scope)


def digest(secret: str) -> str:
    """As which a token or key is stored. 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def new_token(device: str, lifetime: timedelta) -> tuple[str, DeviceToken]:
    """A token for a device, and what is stored of it."""
    secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
    return secret, DeviceToken(digest(secret), device, now, now + lifetime)


def new_operator_key(name: str, scopes: list[Scope]) -> tuple[str, OperatorKey]:
    """A key for an operator, and what is stored of it."""
    secret, now = f"persona-operator-{secrets.token_urlsafe(32)}", datetime.now(UTC)
    stored = OperatorKey(secrets.token_hex(4), name, digest(secret), list(scopes), now)
    return secret, stored


def enrolled_device() -> str:
    """The device whose token the request carries. Raises Problem `token.*`."""
    token = _shown_token()
    if token.expires_at <= datetime.now(UTC):
        raise _unauthorised(
            "token.expired", f"The token expired at {format_time(token.expires_at)}"
        )
    if not token.used:
        service().store.confirm(token)
    return token.device


def renewing_device(device: str) -> ShownToken:
    """The token that this device renews: its own, expired no longer than the host's grace.

    Raises Problem `token.*`.
    """
    token = _shown_token()
    if token.device != device:
        raise Problem("token.other_device", "The token was given to another device")
    over = token.expires_at + service().config.renewal_grace
    if over <= datetime.now(UTC):
        raise _unauthorised(
            "token.expired", f"The token could be renewed until {format_time(over)}"
        )
    return token


def operator(scope: Scope) -> OperatorKey:
    """The key of the operator who asks. Raises Problem `operator.*`."""
    key = service().store.operator_key(digest(_secret("operator.missing", "OPERATOR_KEY")))
    if key is None or key.revoked_at is not None:
        raise _unauthorised("operator.unknown", "The key in `Authorization` is of no operator here")
    if scope not in key.scopes:
        raise Problem(
            "operator.scope", f"Expected a key with scope {scope}, this one has {key.scopes}"
        )
    return key


def _shown_token() -> ShownToken:
    token = service().store.token(digest(_secret("token.missing", "TOKEN")))
    if token is None:
        raise _unauthorised("token.unknown", "The token in `Authorization` is of no device here")
    g.device = token.device
    if token.revoked:
        raise shut_out()
    return token


def _secret(missing: str, name: str) -> str:
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer" or not authorization.token:
        raise _unauthorised(missing, f"Expected `Authorization: Bearer {name}`")
    return authorization.token


def _unauthorised(code: str, said: str) -> Problem:
    """Why who asks is not let in, as HTTP wants it said."""
    return Problem(code, said, headers={"WWW-Authenticate": 'Bearer realm="persona"'})


def shut_out() -> Problem:
    """What a device is told that the operator revoked."""
    return _unauthorised("token.revoked", "The device was shut out by the operator")
