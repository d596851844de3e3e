"""The report shows every figure, brings everything with it, and does not flatter."""

import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from persona.cli.tables import scores_table
from persona.evaluation import charts, figures
from persona.evaluation.figures import Gains, Metric, share, shares
from persona.evaluation.markdown import render_markdown
from persona.evaluation.metrics import Calibration
from persona.evaluation.report import (
    comparison_rows,
    conditions_finding,
    provisos,
    render_report,
    staleness_courses,
)
from persona.evaluation.results import (
    LABELS,
    OURS,
    Cost,
    DeviceResult,
    Estimate,
    ExportResult,
    LeftOut,
    PrototypeMap,
    Results,
    Scored,
    scores,
    table,
)
from persona.formats.measurement import Host, Latency, Measurement

ACCURACY = Metric.named("accuracy")
FULL_SECTIONS = [
    "Against the alternatives",
    "Every way in figures",
    "Under other conditions",
    "Calibration",
    "Device by device",
    "Prototypes",
    "Convergence",
    "Latency",
    "What an edit costs",
    "Exported programs",
    "Time and provenance",
    "Terms",
]
VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "<script>alert('1')</script>\"&"

LATENCY = Measurement(
    format="persona.measurement/1",
    model="digits-0123abcd",
    bundle="b" * 64,
    target="executorch-xnnpack",
    precision="fp32",
    delegates=("XnnpackBackend",) * 2,
    host=Host("Linux", "x86_64", 8, 1, "unknown"),
    base=Latency(300, 50, 116.2, 131.7, 210.4, 121.9),
    edited=Latency(300, 50, 127.8, 139.3, 1228.1, 133.3),
    ratio=127.8 / 116.2,
    load_ms=4.31,
    edit_to_active_ms=0.92,
)
EXPORTS = (
    ExportResult(
        "executorch-xnnpack", "fp32", 412_336, "executed", 1e-5, 4e-7, 5e-7, 6.3e-7, {"forward": 1}
    ),
    ExportResult("coreml", "fp16", 1_221_004, "interpreted", 4e-3, 8e-4, 1.2e-3, 9e-4, {}),
)


def rival_scores(devices: tuple[DeviceResult, ...]) -> dict[str, list[float]]:
    return {
        "prior-correction": [d.static + 0.007 for d in devices],
        "constant-edit": [d.static + 0.002 for d in devices],
    }


@dataclass(frozen=True)
class Scores:
    """What a table is made of, made of devices."""

    scored: Scored
    chance: tuple[float, ...]
    upper_bounds: tuple[str, ...] = ()

    @classmethod
    def of(cls, devices: tuple[DeviceResult, ...], share: float = 1.0) -> "Scores":
        """share: of the gain that is there."""
        columns = {name: [getattr(d, name) for d in devices] for name in OURS}
        gains = [d.edited - d.static for d in devices]
        columns["edited"] = [d.static + share * g for d, g in zip(devices, gains, strict=True)]
        columns |= rival_scores(devices)
        scored = {
            name: {"accuracy": tuple(found), "nll": tuple(1 - v for v in found)}
            for name, found in columns.items()
        }
        return cls(scored, (0.04,) * len(devices))


def make(count: int = 40, gain: float = 0.046, seed: int = 0, **changes: Any) -> Results:
    """Results of `count` devices around made-up levels."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0.864, 0.03, count)
    devices = tuple(
        DeviceResult(
            name=f"device-{i}",
            static=float(level[i]),
            prototype_only=float(level[i] + 0.006),
            edited=float(level[i] + rng.normal(gain, 0.04)),
            other_device_control=float(level[i] - 0.134),
            prototype=i % 3,
            edit_bytes=3_400 + i,
            edit_to_active_ms=0.8 + 0.01 * i,
            round_trip_ms=12.0 + i,
        )
        for i in range(count)
    )
    made = Results(
        format="persona.results/1",
        model="digits-0123abcd",
        bundle="c" * 64,
        metric="accuracy",
        quick=False,
        seeds=(0,),
        trainings=1,
        window=20,
        queries=50,
        **scores(devices, rival_scores(devices)),
        table=table([Scores.of(devices)]),
        conditions={
            "windows of 3": table([Scores.of(devices, 0.4)]),
            "stream: stripes": table([Scores.of(devices, -1.2)]),
        },
        calibration={
            "static": Calibration((0.35, 0.95), (0.33, 0.9), (0.4, 0.6), 0.041),
            "edited": Calibration((0.45, 0.97), (0.35, 0.91), (0.3, 0.7), 0.072),
        },
        edit_spread=0.83,
        devices=devices,
        prototype_map=PrototypeMap(
            points=tuple((float(x), float(y)) for x, y in rng.normal(size=(count, 2))),
            members=tuple(i % 3 for i in range(count)),
            centres=((0.0, 0.0), (1.0, 0.5), (-1.0, 0.3)),
            explained=0.614,
        ),
        curves={
            "backbone": {"steps": [10, 20, 30], "loss": [1.0, 0.5, 0.495]},
            "adapter": {"steps": [5, 10], "loss": [0.45, 0.4]},
        },
        latency=LATENCY,
        exports=EXPORTS,
        left_out={"vulkan": "no Vulkan compiler was found"},
        stages={"training the adapter": 41.8, "exporting": 125.0},
        seconds=166.8,
        made_by={
            "config": {"name": "digits", "adapter": {"latent": 32}},
            "data_fingerprint": "9c1e" * 16,
        },
    )
    return replace(made, **changes)


def bare(**changes: Any) -> Results:
    """The least that there can be: three devices and nothing beside."""
    found = make(3, gain=0.0)
    devices = tuple(
        replace(d, edit_bytes=None, edit_to_active_ms=None, round_trip_ms=None)
        for d in found.devices
    )
    nothing: dict[str, Any] = {
        "bundle": None,
        "devices": devices,
        "rivals": {},
        "edited_minus_rivals": {},
        "conditions": {},
        "calibration": {},
        "prototype_map": PrototypeMap((), (), (), 0.0),
        "curves": {},
        "latency": None,
        "exports": (),
        "left_out": {},
        "stages": {},
        "made_by": {},
    }
    return replace(found, **{**nothing, **changes})


class Page(HTMLParser):
    """A page taken apart: its tags with attributes, its words, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self.words.append(" ")

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append(data)

    @property
    def text(self) -> str:
        """What is read, with every kind of space as one space."""
        return " ".join(re.split(r"\s+", "".join(self.words)))


def svgs(html: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(s) for s in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def test_the_headline_tells_gain_interval_and_number_of_devices():
    found = make()
    gain = found.edited_minus_static
    heading = " ".join(Page(render_report(found)).headings[0].split())
    assert heading == (
        f"The edit raises accuracy by {100 * gain.mean:.1f} points, from "
        f"{100 * found.static.mean:.1f} % to {100 * found.edited.mean:.1f} % on 40 unseen devices "
        f"(95 % interval {signed(100 * gain.low)} to {signed(100 * gain.high)} points)."
    )


def test_every_figure_is_on_the_page():
    found = make()
    text = Page(render_report(found)).text
    rows = (found.static, found.prototype_only, found.edited, found.other_device_control)
    for e in (*rows, *found.rivals.values()):
        assert f"{100 * e.mean:.1f} %" in text
        assert f"{100 * e.low:.1f} to {100 * e.high:.1f}" in text
    for e in (found.edited_minus_other, found.prototype_minus_static):
        assert f"{signed(100 * e.mean)} points" in text
        assert f"{signed(100 * e.low)} to {signed(100 * e.high)} points" in text
    for d in found.devices:
        assert d.name in text
        assert signed(100 * (d.edited - d.static)) in text
    expected = (
        *("prior-correction", "constant-edit", f"{100 * found.losers.mean:.1f} %"),
        *("61.4 %", "0.83"),
        *("116 132 210 122", "128 139 1 228 133", "1.10", "300 of each", "1 thread, 8 cores"),
        *("Linux x86_64; not a phone", "XnnpackBackend × 2", "4.31 ms", "0.92 ms"),
        *("3.4 kB", "1.19 ms", "31.5 ms", "51.0 ms"),
        *("412.3 kB", "1.22 MB", "6.3 × 10⁻⁷", "1.2 × 10⁻³", "1.0 × 10⁻⁵", "interpreted"),
        *("no Vulkan compiler was found", "41.8 s", "2 min 05 s", "2 min 47 s"),
        *("adapter.latent", "32", "9c1e" * 16, "c" * 64),
    )
    assert [figure for figure in expected if figure not in text] == []


def test_rankings_are_told_in_ndcg_with_three_decimals():
    found = make(metric="ndcg@10")
    text = Page(render_report(found)).text
    assert f"raises NDCG@10 by {found.edited_minus_static.mean:.3f}, from" in text
    assert f"{found.static.low:.3f} to {found.static.high:.3f}" in text
    assert "more than 0.05" in text
    assert "points" not in text
    assert "ccuracy" not in text


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (Estimate(0.01, -0.002, 0.02), "No gain is shown: accuracy went"),
        (Estimate(0.01, 0.0, 0.02), "includes zero"),
        (Estimate(-0.03, -0.04, -0.02), "The edit lowers accuracy by 3.0 points"),
    ],
)
def test_an_edit_that_does_not_help_is_not_praised(gain, said):
    heading = Page(render_report(make(edited_minus_static=gain))).headings[0]
    assert said in " ".join(heading.split())
    assert "raises" not in heading


def test_one_device_is_called_no_proof():
    assert Page(render_report(make(1))).headings[0].startswith("One device proves nothing")


def test_few_devices_and_constant_edits_are_pointed_out():
    text = Page(render_report(make(8, edit_spread=0.04))).text
    assert "8 devices are few" in text
    assert "only 0.04 of their size" in text
    assert "are few" not in Page(render_report(make(40))).text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "what helps comes from the device’s own window"),
        ({"other_device_control": Estimate(0.88, 0.87, 0.89)}, "part of the gain suits every"),
        ({"edited_minus_other": Estimate(0.01, -0.01, 0.03)}, "Nothing here is personal"),
        ({"edited_minus_static": Estimate(0.0, -0.01, 0.01)}, "that alone is no gain"),
    ],
)
def test_the_control_is_read_for_what_it_says(changes, said):
    assert said in Page(render_report(make(**changes))).text


def test_a_rival_that_does_better_is_named():
    better = {"fine-tuning": Estimate(0.97, 0.96, 0.98)}
    text = Page(
        render_report(
            make(rivals=better, edited_minus_rivals={"fine-tuning": Estimate(-0.05, -0.06, -0.04)})
        )
    ).text
    assert "1 scores higher than the edit: fine-tuning" in text
    assert "none scores higher" in Page(render_report(make())).text


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ([1.0, 0.5, 0.495], "fell by 1.0 % (0.5000 to 0.4950): it had converged"),
        ([1.0, 0.5, 0.4], "fell by 20.0 % (0.5000 to 0.4000): it may not have converged"),
        ([1.0, 0.5, 0.6], "fell by 0.0 %"),
    ],
)
def test_the_last_third_of_training_tells_whether_the_static_model_converged(loss, said):
    curves = {"backbone": {"steps": [10, 20, 30], "loss": loss}}
    assert said in Page(render_report(make(curves=curves))).text


def test_a_smoke_run_says_so_and_only_a_smoke_run():
    assert "Smoke run, not a measurement." in Page(render_report(make(quick=True))).text
    assert "Smoke run" not in Page(render_report(make())).text


def test_a_program_beyond_its_tolerance_is_named():
    wrong = replace(EXPORTS[1], edited_difference=0.5)
    page = Page(render_report(make(exports=(EXPORTS[0], wrong))))
    assert "Outside the tolerance: coreml fp16" in page.text
    assert ("span", {"class": "lost"}) in page.tags


def test_nothing_is_fetched_and_nothing_runs():
    html = render_report(make())
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {t for t, _ in page.tags}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {"src", "href", "srcset", "xlink:href", "action"} & names
    assert not [name for name in names if name.startswith("on")]
    assert not re.search(r"https?:|url\(|@import|//", html)


def test_hostile_names_are_shown_as_text():
    found = make()
    hostile = replace(
        found,
        model=HOSTILE,
        devices=(replace(found.devices[0], name=HOSTILE), *found.devices[1:]),
        rivals={HOSTILE: Estimate(0.99, 0.98, 1.0)},
        edited_minus_rivals={HOSTILE: Estimate(-0.1, -0.1, -0.1)},
        exports=(replace(EXPORTS[0], target=HOSTILE, delegation={HOSTILE: HOSTILE}),),
        left_out={HOSTILE: HOSTILE},
        stages={HOSTILE: 1.0},
        curves={HOSTILE: {"steps": [1, 2], "loss": [1.0, 0.5]}},
        made_by={HOSTILE: {HOSTILE: HOSTILE}},
    )
    html = render_report(hostile)
    page = Page(html)
    assert "<script" not in html
    assert page.text.count(HOSTILE) >= 10
    assert svgs(html)


def test_control_characters_leave_the_charts_well_formed():
    found = make()
    named = replace(found.devices[0], name="a\x00b\x1f\ud800\uffff")
    chart = charts.gains([named, *found.devices[1:]], found.edited_minus_static, ACCURACY)
    titles = [e.text for e in ElementTree.fromstring(chart).iter("title")]
    assert any(title and title.startswith("a�b���: ") for title in titles)


def test_what_was_not_measured_leaves_no_empty_section():
    page = Page(render_report(bare()))
    sections = [heading for heading in page.headings if heading in FULL_SECTIONS]
    assert sections == [
        "Against the alternatives",
        "Every way in figures",
        "Device by device",
        "Time and provenance",
        "Terms",
    ]
    assert not re.search(r"\b(None|nan|inf)\b|Rivals|Best rival|µs", page.text)


def test_everything_measured_fills_every_section():
    assert [h for h in Page(render_report(make())).headings if h in FULL_SECTIONS] == FULL_SECTIONS


def test_the_same_results_give_the_same_page():
    assert render_report(make()) == render_report(make())
    assert render_report(make()) != render_report(make(seed=1))


def test_every_chart_is_xml_and_tells_what_it_shows():
    html = render_report(make())
    found = svgs(html)
    assert len(found) == html.count("<svg") >= 12
    for svg in found:
        assert svg.get("role") == "img"
        assert len(svg.get("aria-label", "")) > 10


def test_every_chart_but_a_legend_has_named_axes():
    axes = {
        tuple(t.text for t in svg.iter("text") if "axis" in t.get("class", ""))
        for svg in svgs(render_report(make()))
    }
    assert axes == {
        ("Accuracy, %",),
        ("Gain, points", "Devices, from least to most gain"),
        ("First principal component (across) and second (up), same scale",),
        ("Held-out loss, nats", "Training steps"),
        ("Right, share of queries", "Confidence"),
        ("Gain in accuracy, points",),
        ("Time of one call, µs",),
        (),
    }


def test_each_wide_chart_has_a_narrow_one_for_phones():
    html = render_report(make())
    widths = [float(svg.get("width", 0)) for svg in svgs(html)]
    assert html.count('<div class="wide">') == html.count('<div class="narrow">')
    assert widths.count(charts.NARROW) == html.count('<div class="narrow">')


def places(chart: str, tag: str, style: str, *axes: str) -> np.ndarray:
    """Coordinates of the marks of a class, in order."""
    root = ElementTree.fromstring(chart)
    marks = [e for e in root.iter(tag) if style in e.get("class", "").split()]
    return np.array([[float(e.get(axis, "nan")) for axis in axes] for e in marks])


@pytest.mark.parametrize("width", [charts.WIDE, charts.NARROW])
def test_dots_and_intervals_stand_where_their_values_are(width):
    rng = np.random.default_rng(3)
    rows = [
        charts.Row(f"way {i}", Estimate(m, m - 0.02, m + 0.03))
        for i, m in enumerate(rng.uniform(0.5, 0.9, 6))
    ]
    chart = charts.comparison(rows[:2], rows[2:], ACCURACY, width)
    dots = places(chart, "circle", "dot", "cx")[:, 0]
    ends = places(chart, "line", "interval", "x1", "x2")
    means = [r.estimate.mean for r in rows]
    slope, start = np.polyfit(means, dots, 1)
    assert slope > 0
    np.testing.assert_allclose(dots, start + slope * np.array(means), atol=0.02)
    np.testing.assert_allclose(ends[:, 0], dots - 0.02 * slope, atol=0.02)
    np.testing.assert_allclose(ends[:, 1], dots + 0.03 * slope, atol=0.02)
    assert 0 <= ends.min() <= ends.max() <= width


def test_devices_are_drawn_from_least_to_most_gain_and_losers_marked():
    found = make(50, gain=-0.01)
    chart = charts.gains(found.devices, found.edited_minus_static, ACCURACY)
    points = places(chart, "circle", "point", "cx", "cy")
    gains = sorted(d.edited - d.static for d in found.devices)
    slope, start = np.polyfit(gains, points[:, 1], 1)
    assert slope < 0
    np.testing.assert_allclose(points[:, 1], start + slope * np.array(gains), atol=0.02)
    assert (np.diff(points[:, 0]) > 0).all()
    losers = places(chart, "circle", "loses", "cx")
    assert len(losers) == round(found.losers.mean * 50) > 0


def test_losers_are_counted_in_the_key_figures_and_in_words():
    found = make(50, gain=-0.01)
    count = sum(d.edited - d.static < -0.05 for d in found.devices)
    text = Page(render_report(found)).text
    assert count > 1
    assert f"{2 * count:.1f} %{count} of 50" in text
    assert f"{count} by more than 5 points" in text


def test_of_very_many_devices_an_even_share_is_drawn_and_the_page_says_so():
    found = make(2_000)
    html = render_report(found)
    chart = charts.gains(found.devices, found.edited_minus_static, ACCURACY)
    assert len(places(chart, "circle", "point", "cx")) == charts.MOST_MARKS
    assert f"{charts.MOST_MARKS} devices are drawn, evenly by rank" in Page(html).text
    assert "The 200 devices with least gain, of 2000" in Page(html).text


def test_the_map_keeps_one_scale_and_tells_prototypes_apart():
    corners = ((0.0, 0.0), (10.0, 0.0), (0.0, 2.0))
    chart = charts.prototype_map(PrototypeMap(corners, (0, 1, 2), corners, 0.5))
    a, b, c = places(chart, "circle", "centre", "cx", "cy")
    assert (b - a)[0] / 10 == pytest.approx((a - c)[1] / 2, rel=1e-3)
    legend = {re.sub(r"aria-label=.*?>", "", charts.key(k)) for k in range(32)}
    assert len(legend) == 32


@pytest.mark.parametrize("loss", [(1.0, 0.4, 0.3, 0.3), (0.3, 0.8, 0.9, 1.0)])
def test_a_curve_does_not_run_through_what_names_its_last_third(loss):
    chart = charts.curve("gate", (10, 20, 30, 40), loss)
    texts = ElementTree.fromstring(chart).iter("text")
    (label,) = (float(text.get("y", "")) for text in texts if text.text == "last third")
    late = places(chart, "circle", "check", "cx", "cy")[2:4, 1]
    assert abs(late - label).min() > 20


def test_the_state_that_was_kept_is_the_lowest_on_the_curve():
    chart = charts.curve("static model", (10, 20, 30, 40), (1.0, 0.4, 0.3, 0.5))
    checks = places(chart, "circle", "check", "cx", "cy")
    chosen = places(chart, "circle", "chosen", "cx", "cy")
    assert len(checks) == 5
    np.testing.assert_array_equal(chosen, checks[[2]])
    assert chosen[0, 1] == checks[:, 1].max()


def test_means_and_bounds_of_long_figures_stand_side_by_side():
    """Three decimals with signs are wider than points; characters take 7.5 pixels at most."""
    rows = [charts.Row("a way", Estimate(-0.002, -0.021, 0.016))]
    chart = charts.comparison(rows, [], Gains.of(Metric.named("ndcg@10")))
    root = ElementTree.fromstring(chart)
    mean, bounds = (e for e in root.iter("text") if "value" in e.get("class", ""))
    assert float(mean.get("x")) < float(bounds.get("x")) - 7 * len(bounds.text)
    assert bounds.text == "−0.021 to +0.016"


def aged(*shares_of_gain: float) -> Results:
    """Results with edits of the ages 0, 2, 6 … that keep so much of the gain."""
    fresh = make()
    ages = {f"after {i * (i + 1)}": i * (i + 1) for i in range(len(shares_of_gain))}
    tables = {
        name: table([Scores.of(fresh.devices, kept)])
        for name, kept in zip(ages, shares_of_gain, strict=True)
    }
    return replace(fresh, conditions=fresh.conditions | tables, staleness=ages)


def test_gains_by_the_age_of_the_edit_stand_to_scale_with_the_best_rivals():
    found = aged(1.0, 0.6, 0.1, -0.4)
    edited, rival = staleness_courses(found)
    assert list(edited.points) == [0, 2, 6, 12]
    assert rival.label == "prior-correction"
    chart = charts.staleness([edited, rival], Gains.of(ACCURACY))
    for course, role in ((edited, "edited"), (rival, "other")):
        dots = places(chart, "circle", role, "cx", "cy")
        across = (dots[:, 0] - dots[0, 0]) / (dots[-1, 0] - dots[0, 0])
        np.testing.assert_allclose(across, np.array([0, 2, 6, 12]) / 12, atol=1e-3)
        gains = np.array([e.mean for e in course.points.values()])
        if np.ptp(gains) > 1e-6:
            down = (dots[:, 1] - dots[0, 1]) / (dots[-1, 1] - dots[0, 1])
            falls = (gains - gains[0]) / (gains[-1] - gains[0])
            np.testing.assert_allclose(down, falls, atol=1e-3)
    assert "Gain by age of the edit" in Page(render_report(found)).text
    same_age = replace(found, staleness=dict.fromkeys(found.staleness, 4))
    for without in (make(), same_age):
        assert "Gain by age of the edit" not in Page(render_report(without)).text


def test_a_rival_that_one_age_lacks_has_no_course():
    found = aged(1.0, 0.6, 0.1)
    oldest = found.conditions["after 6"]
    rest = {name: row for name, row in oldest.rows.items() if name != "prior-correction"}
    found = replace(found, conditions=found.conditions | {"after 6": replace(oldest, rows=rest)})
    assert [course.label for course in staleness_courses(found)] == ["Edited", "constant-edit"]


def test_names_of_many_courses_stay_in_the_drawing():
    points = {0: Estimate(0.01, 0.0, 0.02), 5: Estimate(0.0, -0.01, 0.01)}
    courses = [charts.Course(f"way {i}", points) for i in range(7)]
    for width in (charts.WIDE, charts.NARROW):
        chart = charts.staleness(courses, Gains.of(ACCURACY), width)
        labels = places(chart, "text", "label", "y")
        assert labels.max() < float(ElementTree.fromstring(chart).get("height"))
        assert len(np.unique(labels)) == 7


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_the_page(scheme):
    """WCAG 2: a contrast of 4.5 at least, in the light palette and in the dark one."""
    html = render_report(make())
    palette = dict(
        re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{(.*?)\}", html, re.S)[scheme])
    )

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for name in ("ink", "quiet", "edit", "loss"):
        darker, lighter = sorted((luminance(palette[name]), luminance(palette["paper"])))
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, name


@pytest.mark.parametrize(
    ("found", "written"),
    [
        (figures.decimal(-0.04, 1), "0.0"),
        (figures.decimal(-1.25, 2), "−1.25"),
        (ACCURACY.gain(0.046), "+4.6 points"),
        (ACCURACY.gain(-0.0001), "0.0 points"),
        (ACCURACY.threshold(0.05), "5 points"),
        (Metric.named("ndcg@10").gain(-0.0104), "−0.010"),
        (figures.size(812), "812 bytes"),
        (figures.size(3_412), "3.4 kB"),
        (figures.duration(0.84), "0.84 s"),
        (figures.duration(119.7), "2 min 00 s"),
        (figures.scientific(1.24e-6), "1.2 × 10⁻⁶"),
        (figures.scientific(0.0), "0"),
    ],
)
def test_figures_are_written_as_people_read_them(found, written):
    assert " ".join(found.split()) == written


def test_the_table_names_every_way_with_its_figures():
    found = make()
    page = render_report(found)
    section = page.split("Every way in figures")[1].split("</section>")[0]
    for name, row in found.table.rows.items():
        label = LABELS.get(name, name)
        assert section.count(f'<th scope="row">{label}</th>') == 1
        for written, estimate in (
            (ACCURACY.number, row.score),
            (ACCURACY.signed, row.gain),
            (ACCURACY.signed, row.ahead),
        ):
            low, high = written(estimate.low), written(estimate.high)
            assert f'{written(estimate.mean)} <span class="quiet">[{low}, {high}]</span>' in section
    assert "4.0" in section, "the share that would lose by chance"


def test_conditions_tell_where_the_edit_hurts():
    found = make()
    text = conditions_finding(found, ACCURACY)
    assert "worse than the static model under stream: stripes" in text
    assert "windows of 3" not in text
    assert "better than the static model under every condition" in conditions_finding(
        replace(found, conditions={"windows of 3": found.conditions["windows of 3"]}), ACCURACY
    )


def test_several_trainings_are_said_to_be_several():
    assert "One trained model" in " ".join(provisos(make()))
    several = " ".join(provisos(make(trainings=5)))
    assert "5 trainings of backbone and adapter" in several
    assert "One trained model" not in several


def test_markdown_has_the_same_figures_in_whole_tables():
    found = make()
    text = render_markdown(found)
    tables = [line.split("|") for line in text.splitlines() if line.startswith("|")]
    assert {len(line) for line in tables[:8]} == {8}
    for name, row in found.table.rows.items():
        label = LABELS.get(name, name)
        line = next(t for t in tables if t[1].strip() == label)
        low, high = ACCURACY.number(row.score.low), ACCURACY.number(row.score.high)
        assert line[2].strip() == f"{ACCURACY.number(row.score.mean)} [{low}, {high}]"


def test_every_way_stands_under_every_condition_with_its_gain_and_losers():
    found = make()
    lines = [line.split("|")[1:-1] for line in render_markdown(found).splitlines() if "|" in line]
    page = render_report(found).split("Under other conditions")[1].split("</section>")[0]
    stripes = found.conditions["stream: stripes"]
    for name, row in stripes.rows.items():
        if name != "static":
            ours = [c[-1].strip() for c in lines if c[0].strip() == LABELS.get(name, name)]
            assert any(cell.startswith(ACCURACY.signed(row.gain.mean)) for cell in ours[1:])
            assert ours[-1] == shares(row.losers)
            assert page.count(f'<th scope="row">{LABELS.get(name, name)}</th>') == 2
            assert f'<td class="n">{share(row.losers.mean)} <span' in page
    assert lines[-len(stripes.rows)][-1].strip() == share(stripes.chance), "after by chance"


def test_a_report_without_the_trained_rivals_says_so():
    assert "such as DUET and APG, were not run here" in " ".join(provisos(make()))
    assert "DUET" not in " ".join(provisos(bare()))


def test_costs_what_was_left_out_and_what_made_it_are_in_both_documents():
    scored = Scores.of(make().devices)
    costs = {"static": Cost(0, 0.0196), "edited": Cost(5.461, 0.0198)}
    found = make(
        table=table([scored], [costs]),
        data_left_out=LeftOut({"unusable rows": 31}, ("log.csv: line 3: no <item>",)),
        mixed=("Trainings differ in their code: seed-0: a; seed-1: b.",),
        made_by={
            "command": "persona evaluate digits",
            "code": "0123456789ab",
            "evaluated_with": {"persona": "0.1.0", "torch": "2.13.0"},
            "machine": {
                "processor": "A processor",
                "system": "Linux",
                "machine": "x86_64",
                "cores": 2,
                "threads": 1,
            },
        },
    )
    for text in (render_markdown(found), Page(render_report(found)).text):
        for said in (
            "5.46",
            "0.020",
            "Once, ms",
            "31 unusable rows",
            "log.csv: line 3: no <item>",
            "Trainings differ in their code",
            "persona evaluate digits",
            "0123456789ab",
            "A processor",
            "it had converged",
        ):
            assert said in text, said
    assert "Once, ms" not in render_markdown(make())
    assert "Once, ms" not in Page(render_report(make())).text


def test_a_way_that_reads_labels_says_so_wherever_it_is_named():
    found = make()
    rows = {**found.table.rows}
    rows["constant-edit"] = replace(rows["constant-edit"], kind="upper bound")
    found = replace(found, table=replace(found.table, rows=rows))
    named = "constant-edit (with labels)"
    terminal = Console(width=100, file=StringIO())
    terminal.print(scores_table(found))
    assert f"rival: {named}" in terminal.file.getvalue()
    assert named in render_markdown(found)
    assert named in [row.label for row in comparison_rows(found)[1]]
    assert "prior-correction (" not in render_markdown(found)
