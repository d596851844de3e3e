"""Operators sign in to the dashboard with their key; a cookie stands for it for some hours.

The cookie is random, kept as its digest, and dies with the key. It is sent by this site's own pages
alone (SameSite=Strict), read by no script (HttpOnly), and over TLS only where the site is.
"""

import secrets
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Response, redirect, request
from sqlalchemy import delete, select

from persona_cloud.identity import digest
from persona_cloud.problems import Problem
from persona_cloud.service import service
from persona_cloud.tables import DashboardSession, OperatorKey

COOKIE = "persona_dashboard"
PATH = "/dashboard"
LIFETIME = timedelta(hours=12)

View = TypeVar("View")


def sign_in(key: str) -> Response | None:
    """The way to the dashboard with a new cookie, or None where the key does not open it."""
    found = service().store.operator_key(digest(key))
    if found is None or found.revoked_at is not None or "dashboard" not in found.scopes:
        return None
    secret, now = secrets.token_urlsafe(32), datetime.now(UTC)
    with service().store.writing() as session:
        session.execute(delete(DashboardSession).where(DashboardSession.expires_at <= now))
        session.add(DashboardSession(digest(secret), found.id, now + LIFETIME))
    response = cast(Response, redirect(PATH, 303))
    response.set_cookie(
        COOKIE,
        secret,
        max_age=LIFETIME,
        path=PATH,
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )
    return response


def sign_out() -> Response:
    """The way to the sign-in page; the cookie opens nothing more."""
    with service().store.writing() as session:
        session.execute(delete(DashboardSession).where(DashboardSession.sha256 == digest(_shown())))
    response = cast(Response, redirect(f"{PATH}/sign-in", 303))
    response.delete_cookie(COOKIE, path=PATH)
    return response


def signed_in(view: View) -> View:
    """Decorator: a page for operators only; others are sent to sign in."""

    @wraps(view)  # type: ignore[arg-type]
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _operator() is None:
            return redirect(f"{PATH}/sign-in", 303)
        return view(*args, **kwargs)  # type: ignore[operator]

    return cast(View, guarded)


def check_same_site() -> None:
    """Refuse a form that another site sent. Raises Problem `request.other_site`.

    Browsers say where a form comes from in `Sec-Fetch-Site` or `Origin`, and no page can forge it.
    """
    fetched, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    other = fetched not in (None, "same-origin", "none")
    if origin is not None and origin != request.host_url.rstrip("/"):
        other = fetched is None or other
    if other:
        raise Problem("request.other_site", "The form was sent by another site's page")


def _operator() -> OperatorKey | None:
    query = (
        select(OperatorKey)
        .join(DashboardSession, DashboardSession.operator_key == OperatorKey.id)
        .where(DashboardSession.sha256 == digest(_shown()))
        .where(DashboardSession.expires_at > datetime.now(UTC))
        .where(OperatorKey.revoked_at.is_(None))
    )
    with service().store.reading() as session:
        found = session.scalar(query)
    return found if found is not None and "dashboard" in found.scopes else None


def _shown() -> str:
    return request.cookies.get(COOKIE, "")
