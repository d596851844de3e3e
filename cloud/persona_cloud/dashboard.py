"""The dashboard: what the fleet does, for operators with a browser. It changes nothing.

Rendered on the server, without scripts and without the internet.
"""

from typing import Any

from flask import Blueprint, Response, render_template, request

from persona_cloud.api.models import state_of
from persona_cloud.charts import MAX_SERIES, WIDE, bars, legend_mark, lines, scatter, share_bar
from persona_cloud.charts import number_text as number
from persona_cloud.figures import Figures, span_of
from persona_cloud.incoming import body
from persona_cloud.service import service
from persona_cloud.sessions import check_same_site, sign_in, sign_out, signed_in

blueprint = Blueprint(
    "dashboard",
    __name__,
    url_prefix="/dashboard",
    static_folder="static",
    static_url_path="/static",
)

SPANS = {1: "24 hours", 7: "7 days", 30: "30 days", 90: "90 days"}
_PAGES = {
    "": "Overview",
    "prototypes": "Prototypes",
    "latency": "Latency",
    "rollout": "Rollout",
    "failures": "Failures",
}
_MAX_FORM = 4096


@blueprint.get("")
@signed_in
def overview() -> str:
    """Devices and edits over time."""
    span = span_of(_days())
    found, labels = _figures().overview(span), span.labels()
    return _page(
        "",
        found=found,
        edits=bars("Edits issued", labels, found.edits_by_bucket),
        devices=bars("Devices enrolled", labels, found.new_devices),
        by_time=list(zip(labels, found.edits_by_bucket, found.new_devices, strict=True)),
        prototypes=bars(
            "Edits by prototype",
            [name for name, _ in found.by_prototype],
            [count for _, count in found.by_prototype],
            WIDE,
        ),
    )


@blueprint.get("/prototypes")
@signed_in
def prototypes() -> str:
    """Where devices' latents lie, by prototype."""
    line = service().versions.line()
    asked = request.args.get("version", line.stable)
    version = asked if asked in line.versions else line.stable
    found = _figures().latent_map(version, span_of(_days()))
    return _page(
        "prototypes",
        found=found,
        version=version,
        versions=[(v, state_of(known, line)) for v, known in reversed(list(line.versions.items()))],
        map=scatter(f"{len(found.points)} latents in two dimensions", found.points),
        legend=[legend_mark(i % MAX_SERIES) for i in range(len(found.groups))],
        repeated=len(found.groups) > MAX_SERIES,
    )


@blueprint.get("/latency")
@signed_in
def latency() -> str:
    """What devices measured, by kind of device and target."""
    span = span_of(_days())
    found = _figures().latency(span)
    return _page(
        "latency",
        found=found,
        chart=lines("Median milliseconds of an edited forward", span.labels(), found.series),
        legend=[(legend_mark(i), one.name) for i, one in enumerate(found.series)],
    )


@blueprint.get("/rollout")
@signed_in
def rollout() -> str:
    """Which version devices shall have, and what became of those before."""
    versions = service().versions
    line = versions.line()
    names = {key.id: key.name for key in service().store.operator_keys()}
    listed = [
        (known, state_of(known, line), versions.rollouts.outcomes(known.bundle))
        for known in reversed(list(line.versions.values()))
    ]
    return _page(
        "rollout",
        line=line,
        listed=listed,
        share=share_bar(f"{line.percent:g} % of devices", line.percent / 100),
        events=_figures().events(line.name),
        names=names,
    )


@blueprint.get("/failures")
@signed_in
def failures() -> str:
    """What did not work on devices."""
    span = span_of(_days())
    found = _figures().failures(span)
    return _page(
        "failures",
        found=found,
        chart=bars("Failures reported", span.labels(), found.by_bucket, WIDE),
    )


@blueprint.get("/sign-in")
def sign_in_page() -> str:
    """Where operators show their key."""
    return render_template("dashboard/sign_in.html", refused=False)


@blueprint.post("/sign-in")
def sign_in_form() -> Response | tuple[str, int]:
    """Open a session for an operator's key."""
    check_same_site()
    body(_MAX_FORM)
    response = sign_in(request.form.get("key", ""))
    if response is None:
        return render_template("dashboard/sign_in.html", refused=True), 403
    return response


@blueprint.post("/sign-out")
def sign_out_form() -> Response:
    """Close the session."""
    check_same_site()
    return sign_out()


def _figures() -> Figures:
    return Figures(service().store)


def _days() -> int:
    text = request.args.get("days", "")
    days = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 7
    return days if days in SPANS else 7


def _page(page: str, **shown: Any) -> str:
    return render_template(
        f"dashboard/{page or 'overview'}.html",
        page=page,
        pages=_PAGES,
        days=_days(),
        spans=SPANS,
        model=service().versions.name,
        number=number,
        **shown,
    )
