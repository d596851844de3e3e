"""`persona demo`, the whole path in one command: what it prints, and what it leaves behind.

Figures of a quick run mean nothing, so none is asserted; that they are there and consistent is.
"""

import json
import re

import pytest

from persona.bundles import open_bundle
from persona.runs import load_run

SECONDS = 300
DEVICES = 20


@pytest.fixture(scope="module")
def demo(start, tmp_path_factory):
    """Run it over an older demo; gives the folder and the object that it printed."""
    out = tmp_path_factory.mktemp("demo") / "shown"
    out.mkdir()
    for name in ("results.json", "report.html", "run", "bundle", "devices"):
        (out / name).write_text("{}")
    process = start("demo", "--quick", "--json", "--devices", DEVICES, "--out", out)
    printed, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return out, json.loads(printed)


def test_one_object_has_every_figure_with_its_interval(demo):
    _, said = demo
    for name in ("static", "prototype", "edited", "other_device_control"):
        estimate = said["accuracy"][name]
        assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
    latency = said["latency"]
    assert latency["base_p50_us"] > 0
    assert latency["ratio"] == pytest.approx(latency["edited_p50_us"] / latency["base_p50_us"])
    assert said["edit"]["bytes"] > 0
    assert said["devices"] == DEVICES
    assert said["seconds"] > 0
    assert said["quick"] is True
    for export in said["exports"].values():
        assert export["difference"] <= export["tolerance"]


def test_means_follow_from_the_devices_in_the_results_document(demo):
    out, said = demo
    devices = json.loads((out / "results.json").read_text())["devices"]
    assert len(devices) == len({d["name"] for d in devices}) == DEVICES
    columns = {"static": "static", "prototype": "prototype_only", "edited": "edited"}
    columns["other_device_control"] = "other_device_control"
    for name, column in columns.items():
        mean = sum(d[column] for d in devices) / DEVICES
        assert said["accuracy"][name]["mean"] == pytest.approx(mean)
    sizes = sorted(d["edit_bytes"] for d in devices)
    assert sizes[0] <= said["edit"]["bytes"] <= sizes[-1]


def test_the_report_opens_without_internet(demo):
    out, said = demo
    assert said["report"] == str(out / "report.html")
    page = (out / "report.html").read_text()
    fetched = re.findall(r'(?:src|href|url\()\s*=?\s*["\']?([^"\'#)>\s]+)', page)
    assert not [link for link in fetched if not link.startswith("data:")]
    assert "<svg" in page or "data:image" in page, "the map is in the page"
    assert "@import" not in page


def test_it_leaves_a_run_a_bundle_and_devices_and_nothing_of_the_older_demo(demo):
    out, said = demo
    assert {p.name for p in out.parent.iterdir()} == {"shown"}
    assert {p.name for p in out.iterdir()} == {
        "bundle",
        "devices",
        "report.html",
        "results.json",
        "run",
    }
    assert open_bundle(out / "bundle").digest == said["bundle"]
    assert load_run(out / "run").model == said["model"]
    assert len(list((out / "devices").glob("*/state.json"))) == DEVICES
