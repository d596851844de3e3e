"""The demo's fleet: what its results document says of the data that the devices came from."""

import shutil

from persona.cli.demo import cloud
from persona.cli.fleet import run_fleet
from persona.evaluation.report import render_report
from persona.runs import load_run
from persona.training.pipeline import open_dataset
from persona_export.export import Wanted, export_bundle

FAULT = "log.csv: line 3: no label"


def silent(_stage):
    return lambda _done, _all: None


def test_what_the_data_left_out_is_in_the_results(digits_run, tmp_path):
    run = load_run(shutil.copytree(digits_run.path, tmp_path / "run"))
    data = open_dataset(run.record.config, None)
    data.left_out, data.faults = {"unusable rows": 2, "repeated events": 0}, (FAULT,)
    wanted = (Wanted("executorch-xnnpack"),)
    exported = export_bundle(run, wanted, tmp_path / "bundle", silent)
    with cloud(run.path, tmp_path / "bundle") as url:
        fleet = run_fleet(
            run,
            exported,
            data,
            url,
            tmp_path / "devices",
            count=2,
            iterations=2,
            progress=silent,
        )
    results = fleet.results(quick=True, stages={}, seconds=1.0)
    assert results.data_left_out.counts == {"unusable rows": 2}
    assert results.data_left_out.faults == (FAULT,)
    assert FAULT in render_report(results)
