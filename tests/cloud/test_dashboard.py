"""The dashboard tells what the database holds, to operators only, and looks right in a browser.

PERSONA_SCREENS=FOLDER keeps the screenshots.
"""

import os
import re
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from browser import browser
from cloud_phone import enrol_at, problem
from databases import rows
from fleets import fill

from persona_cloud import create_app
from persona_cloud.charts import MAX_SERIES, Point, Series, bars, lines, number_text, scatter
from persona_cloud.figures import Figures, Span, principal_plane
from persona_cloud.identity import digest, new_operator_key
from persona_cloud.service import service_of
from persona_cloud.serving import running
from persona_cloud.tables import StoredMeasurement

PAGES = ("", "/prototypes", "/latency", "/rollout", "/failures")
FLEETS = {"empty": (0, 0, 1), "small": (8, 30, 5), "large": (1500, 9000, 60)}


@pytest.fixture
def cloud(config, url):
    """A cloud with its own database, its address and a key that opens the dashboard."""

    @contextmanager
    def start():
        app = create_app(replace(config, database_url=url))
        service = service_of(app)
        secret, key = new_operator_key("Ada", ["dashboard"])
        service.store.add_operator_key(key)
        with running(app) as address:
            yield service, address, secret, key

    return start


def sign_in(http, secret, **headers):
    return http.post("/dashboard/sign-in", data={"key": secret}, headers=headers)


def test_pages_are_for_operators_with_the_scope_only(cloud):
    with cloud() as (service, address, secret, key), httpx.Client(base_url=address) as http:
        for page in PAGES:
            answer = http.get(f"/dashboard{page}")
            assert (answer.status_code, answer.headers["Location"]) == (303, "/dashboard/sign-in")
        other, metrics = new_operator_key("prometheus", ["metrics"])
        service.store.add_operator_key(metrics)
        for wrong in ("", "nobody", other, digest(secret)):
            refused = sign_in(http, wrong)
            assert refused.status_code == 403
            assert "Set-Cookie" not in refused.headers
        assert sign_in(http, secret).status_code == 303
        for page in PAGES:
            assert http.get(f"/dashboard{page}").status_code == 200
        service.store.revoke_operator_key(key.id, datetime.now(UTC))
        assert http.get("/dashboard").status_code == 303, "a revoked key's sessions end at once"


def test_the_cookie_is_for_this_site_alone_and_its_digest_is_what_is_stored(cloud, url):
    with cloud() as (_, address, secret, _), httpx.Client(base_url=address) as http:
        cookie = sign_in(http, secret).headers["Set-Cookie"]
        flags = {part.strip().split("=")[0] for part in cookie.split(";")[1:]}
        assert {"HttpOnly", "SameSite", "Path", "Max-Age"} <= flags
        assert "SameSite=Strict" in cookie
        assert "Path=/dashboard" in cookie
        value = cookie.split(";")[0].partition("=")[2]
        assert rows(url, "SELECT sha256 FROM dashboard_sessions") == [(digest(value),)]
        http.cookies.clear()
        stolen = {"Cookie": f"persona_dashboard={digest(value)}"}
        assert http.get("/dashboard", headers=stolen).status_code == 303


def test_signing_out_ends_the_session_for_whoever_has_the_cookie(cloud):
    with cloud() as (_, address, secret, _), httpx.Client(base_url=address) as http:
        sign_in(http, secret)
        kept = dict(http.cookies)
        assert http.post("/dashboard/sign-out").status_code == 303
        assert http.get("/dashboard", cookies=kept).status_code == 303


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "https://other.example.com"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_form_of_another_site_is_refused(cloud, headers):
    with cloud() as (_, address, secret, _), httpx.Client(base_url=address) as http:
        problem(sign_in(http, secret, **headers), 403, "request.other_site")
        sign_in(http, secret)
        problem(http.post("/dashboard/sign-out", headers=headers), 403, "request.other_site")
        assert http.get("/dashboard").status_code == 200


def test_no_page_can_run_or_embed_anything(cloud):
    with cloud() as (_, address, secret, _), httpx.Client(base_url=address) as http:
        sign_in(http, secret)
        for page in (*PAGES, "/sign-in"):
            answer = http.get(f"/dashboard{page}")
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert answer.headers["Cache-Control"] == "no-store"
            assert not re.search(r"<script|\son\w+=|style=|https?://", answer.text)


def test_what_devices_chose_is_text_on_the_pages(cloud, bundle):
    evil = "<script>alert(1)</script>"
    with cloud() as (service, address, secret, _), httpx.Client(base_url=address) as http:
        fill(service.store, service.versions.name, bundle, 1, 12, 1)
        with service.store.writing() as session:
            for row in session.query(StoredMeasurement):
                row.target, row.document = (
                    evil,
                    row.document | {"host": {"system": evil, "machine": "'\"><img src=x>"}},
                )
        sign_in(http, secret)
        page = http.get("/dashboard/latency").text
        assert "&lt;script&gt;" in page
        assert evil not in page
        assert "<img" not in page


def test_the_numbers_are_those_of_the_database(cloud, bundle, observations, url):
    with cloud() as (service, address, secret, _), httpx.Client(base_url=address) as http:
        phones = [enrol_at(http, bundle) for _ in range(3)]
        for phone, times in zip(phones, (1, 2, 0), strict=True):
            for _ in range(times):
                phone.ask(observations[0])
        rows(url, "UPDATE issued_edits SET issued_at = :old WHERE sequence = 2", old=long_ago())
        found = Figures(service.store).overview(Span(7, datetime.now(UTC)))
        assert (found.devices, found.active, found.edits) == (3, 2, 2)
        assert found.edits_by_bucket == [0, 0, 0, 0, 0, 0, 2]
        assert sum(count for _, count in found.by_prototype) == 2
        sign_in(http, secret)
        page = http.get("/dashboard?days=7").text
        assert re.findall(r"<dd>([\d,]+)</dd>", page) == ["3", "2", "2", "0"]


def long_ago():
    return (datetime.now(UTC) - timedelta(days=40)).strftime("%Y-%m-%d %H:%M:%S.000000")


@pytest.mark.parametrize("days", [1, 7, 30, 90])
def test_every_moment_of_a_span_falls_into_one_of_its_buckets(days):
    span = Span(days, datetime(2026, 3, 1, 23, 59, 59, 999_999, UTC))
    buckets = span.buckets()
    assert len(buckets) == len(set(buckets)) == len(span.labels()) == (24 if days == 1 else days)
    assert span.bucket_of(span.since) == buckets[0]
    assert span.bucket_of(span.now) == buckets[-1]


def test_the_plane_of_latents_is_where_they_differ_most():
    numbers = np.random.default_rng(1)
    spread = np.array([0.1, 5.0, 0.2, 3.0])
    latents = [numbers.normal(size=4) * spread for _ in range(400)]
    placed, explained = principal_plane(latents)
    variances = np.linalg.eigvalsh(np.cov(np.stack(latents).T))
    np.testing.assert_allclose(placed.var(axis=0, ddof=1), variances[::-1][:2])
    assert explained == pytest.approx(variances[2:].sum() / variances.sum())
    assert principal_plane([np.zeros(3)] * 5)[1] == 0.0


def parsed(svg):
    return ElementTree.fromstring(str(svg))


def test_a_chart_is_well_formed_and_stays_within_its_frame():
    values = [0, 3, None, 1e6, 2.5]
    charts = (
        bars("<b>&", ["a<", "b"], [0, 7]),
        lines("x", list("abcde"), [Series("s", values)]),
        scatter("m", [Point(i, -i, i) for i in range(20)]),
        bars("none", [], []),
        scatter("one", [Point(1, 1, 0)]),
    )
    for chart in charts:
        root = parsed(chart)
        width, height = (float(root.get(side)) for side in ("width", "height"))
        for shape in root.iter("rect"):
            assert 0 <= float(shape.get("x", 0)) <= width
            assert float(shape.get("y", 0)) + float(shape.get("height")) <= height + 0.5
    assert len(parsed(charts[1]).findall("polyline")) == 2, "a gap ends a line"
    assert parsed(charts[0]).get("aria-label") == "<b>&"


def test_bars_are_as_tall_as_their_values():
    heights = [
        float(bar.get("height")) for bar in parsed(bars("x", list("ab"), [2, 6])).iter("rect")
    ]
    assert heights[1] == pytest.approx(3 * heights[0], rel=0.01)
    assert MAX_SERIES == 8


def test_numbers_are_written_for_people():
    shown = {0: "0", 1234567: "1,234,567", 12.34: "12.3", 3.0: "3", 0.01234: "0.012"}
    assert {value: number_text(value) for value in shown} == shown


@pytest.mark.parametrize("fleet", FLEETS)
def test_every_page_looks_right_in_a_browser(cloud, bundle, fleet, tmp_path, url):
    if url.startswith("postgresql"):
        pytest.skip("the pages are the same; seen once, on SQLite")
    screens = Path(os.environ.get("PERSONA_SCREENS", tmp_path))
    with cloud() as (service, address, secret, _), browser(tmp_path / "profile") as page:
        devices, edits, days = FLEETS[fleet]
        if devices:
            fill(service.store, service.versions.name, bundle, devices, edits, days)
        page.open(f"{address}/dashboard")
        assert page.evaluate("document.title") == "Sign in · Persona"
        if fleet == "empty":
            page.screenshot(screens / "sign-in.png")
        page.submit(
            f"document.querySelector('#key').value = '{secret}';"
            "document.querySelector('button').click()"
        )
        assert page.evaluate("location.pathname") == "/dashboard"
        for path in PAGES:
            for width, dark in ((1280, False), (1280, True), (390, False)):
                page.open(f"{address}/dashboard{path}?days=30", width, dark=dark)
                assert page.complaints() == []
                assert all(asked.startswith(address) for asked in page.asked())
                assert page.evaluate("document.documentElement.scrollWidth") <= width, path
                assert page.evaluate(UNNAMED) == []
                assert page.evaluate(LOW_CONTRAST) == [], (path, dark)
                name = f"{fleet}{path.replace('/', '-') or '-overview'}"
                page.screenshot(screens / f"{name}-{width}{'-dark' if dark else ''}.png")


UNNAMED = """
[...document.querySelectorAll('svg:not([aria-hidden]), input:not([type=hidden]), select, nav')]
  .filter(e => !(e.getAttribute('aria-label') || (e.labels && e.labels.length)))
  .map(e => e.outerHTML.slice(0, 80))
"""
"""Images, fields and navigations that a screen reader could not name."""

LOW_CONTRAST = """
(() => {
  const curve = v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => curve(c / 255);
  const parse = s => s.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const box = e.getBoundingClientRect();
    if (!own || box.width === 0 || box.right < 0 || e.tagName === 'TITLE') continue;
    const style = getComputedStyle(e);
    const ink = parse(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [luminance(ink), luminance(behind(e))].sort((x, y) => y - x);
    if ((a + .05) / (b + .05) < 4.5) found.push(e.outerHTML.slice(0, 80));
  }
  return found;
})()
"""
"""Text whose contrast is below WCAG's 4.5 : 1."""
