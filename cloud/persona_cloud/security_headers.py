"""Headers that keep browsers from making more of an answer than it is."""

from flask import Response, request

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGES = "/dashboard"
_OF_PAGES = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_OVER_TLS = {"Strict-Transport-Security": "max-age=31536000"}


def add_security_headers(response: Response) -> Response:
    """Add them to every answer: pages style themselves from a file and send forms to us alone."""
    pages = _OF_PAGES if request.path.startswith(_PAGES) else {}
    response.headers.update(_ALWAYS | pages | (_OVER_TLS if request.is_secure else {}))
    return response
