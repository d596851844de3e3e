"""Edits for a file of observations: the bytes of one alone, resumable, also on a Ray cluster.

PERSONA_SLOW=1 runs the large version of the test on Ray, too.
"""

import csv
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from persona.cli import main
from persona.formats import container
from persona.formats.edit import METADATA
from persona.formats.observation import Envelope, to_json, to_safetensors
from persona.formats.verify import Signature, verify_edit
from persona.issuing import Issuer, Request
from persona.offline_edits import PartMaker, PlanError, finish, plan_edits, unfinished
from persona.runs import load_run
from persona.signing import PublicKeys
from persona_cloud.signing_keys import SigningKeys
from persona_cloud.store import Store

WEEK = timedelta(days=7)


@pytest.fixture
def write(bundle, observations, tmp_path):
    """Writes a file of observations; `changed` replaces those at some rows."""

    def file(count, name="observations.parquet", changed=None, only=None):
        envelopes = [Envelope(bundle.digest, o) for o in observations]
        forms = [
            json.dumps(to_json(e)) if name.endswith(".csv") else to_safetensors(e)
            for e in envelopes
        ]
        rows = [(f"device {i}", i + 1, forms[i % len(forms)]) for i in range(count)]
        for at, data in (changed or {}).items():
            rows[at] = (*rows[at][:2], data)
        rows = rows if only is None else [rows[only]]
        path = tmp_path / name
        if name.endswith(".csv"):
            with path.open("w", newline="") as out:
                csv.writer(out).writerows([("device", "sequence", "observation"), *rows])
        else:
            columns = ("device", "sequence", "observation")
            pq.write_table(pa.table(dict(zip(columns, zip(*rows, strict=True), strict=True))), path)
        return path

    return file


@pytest.fixture
def compute(run, bundle):
    def made(observations, out, part_rows=None):
        plan = plan_edits(observations, run.path, bundle.path, out, WEEK, part_rows)
        maker = PartMaker(run.path, bundle.path, out)
        for part in unfinished(plan, out):
            maker.make(part)
        return finish(plan, out)

    return made


def index_of(out):
    return pq.read_table(out / "index").sort_by([("sequence", "ascending")]).to_pylist()


def bytes_of(out, row):
    """An edit as a server of files gives it: a range of bytes."""
    with (out / "edits" / f"{row['part']}.zip").open("rb") as part:
        part.seek(row["offset"])
        return part.read(row["size"])


def without_times(data):
    """Every tensor's bytes and what an edit says of itself, but for when it was made."""
    tensors, said = container.decode(data)
    kept = {key: said[key] for key in METADATA if not key.endswith("_at")}
    return {name: (t.dtype, t.shape, t.data) for name, t in tensors.items()}, kept


def all_without_times(out):
    return [without_times(bytes_of(out, row)) for row in index_of(out) if not row["problem"]]


def test_every_edit_lies_where_the_index_says_and_a_device_accepts_it(
    write, compute, bundle, tmp_path
):
    manifest = compute(write(150), tmp_path / "out", part_rows=64)
    rows = index_of(tmp_path / "out")
    assert [part.edits for part in manifest.parts] == [64, 64, 22]
    assert [(row["device"], row["sequence"]) for row in rows] == [
        (f"device {i}", i + 1) for i in range(150)
    ]
    for row in rows:
        expected = bundle.expectation(row["device"], row["sequence"] - 1)
        signature = Signature(row["key_id"], row["signature"])
        edit = verify_edit(
            bytes_of(tmp_path / "out", row),
            signature,
            bundle.edit_keys(),
            expected,
            datetime.now(UTC),
        )
        assert edit.info.prototype == row["prototype"]


def test_the_archive_is_a_zip_that_any_tool_reads(write, compute, tmp_path):
    compute(write(70), tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "out" / "edits" / "part-00000.zip") as archive:
        assert archive.testzip() is None
        members = [archive.read(name) for name in archive.namelist()]
    assert members == [bytes_of(tmp_path / "out", row) for row in index_of(tmp_path / "out")]


def test_bytes_are_those_of_an_edit_computed_alone(write, compute, tmp_path):
    compute(write(100), tmp_path / "all", part_rows=64)
    together = all_without_times(tmp_path / "all")
    for at in (0, 63, 64, 99):
        compute(write(100, "one.parquet", only=at), tmp_path / f"one {at}")
        (alone,) = all_without_times(tmp_path / f"one {at}")
        assert alone == together[at]


def test_an_edit_is_the_one_that_the_cloud_makes(
    write, compute, run, bundle, observations, tmp_path
):
    compute(write(8), tmp_path / "out")
    issuer = Issuer(run, bundle)
    for at, (mine, said) in enumerate(all_without_times(tmp_path / "out")):
        (issued,) = issuer.issue([Request(f"device {at}", at + 1, observations[at])])
        theirs, told = without_times(issued.data)
        assert told == said
        for name, (dtype, _, data) in theirs.items():
            kind = {"F16": "<f2", "F32": "<f4"}[dtype]
            np.testing.assert_allclose(
                np.frombuffer(mine[name][2], kind), np.frombuffer(data, kind), rtol=2e-3, atol=1e-6
            )


def test_csv_with_json_gives_the_same_edits_as_parquet_with_safetensors(write, compute, tmp_path):
    compute(write(20), tmp_path / "parquet")
    compute(write(20, "observations.csv"), tmp_path / "csv")
    assert all_without_times(tmp_path / "csv") == all_without_times(tmp_path / "parquet")


def test_a_bad_observation_is_listed_and_stops_nothing(
    write, compute, bundle, observations, tmp_path
):
    compute(write(70), tmp_path / "good")
    other = to_safetensors(Envelope("0" * 64, observations[0]))
    long = bytes(bundle.manifest.max_observation_bytes + 1)
    bad = {3: b"no safetensors", 40: other, 41: None, 69: long}
    manifest = compute(write(70, changed=bad), tmp_path / "out")
    problems = {
        row["sequence"] - 1: row["problem"] for row in index_of(tmp_path / "out") if row["problem"]
    }
    assert problems == {
        3: "container.header_too_long",
        40: "observation.other_base",
        41: "observation.invalid",
        69: "observation.too_long",
    }
    assert manifest.parts[0].problems == dict.fromkeys(problems.values(), 1)
    good = all_without_times(tmp_path / "good")
    assert all_without_times(tmp_path / "out") == [e for at, e in enumerate(good) if at not in bad]


def test_a_computation_that_is_killed_goes_on_where_it_was(write, compute, run, bundle, tmp_path):
    """Killed without warning, in a process of its own, after its first part."""
    file, out = write(6 * 64), tmp_path / "out"
    plan_edits(file, run.path, bundle.path, out, WEEK, part_rows=64)
    command = [
        sys.executable,
        "-m",
        "persona",
        "edits",
        file,
        "--run",
        run.path,
        "--bundle",
        bundle.path,
    ]
    with subprocess.Popen([*command, "--out", out], stdout=subprocess.DEVNULL) as process:
        end = time.monotonic() + 240
        while not any((out / "index").glob("part-*")) and time.monotonic() < end:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finished = {path: path.read_bytes() for path in (out / "index").glob("part-*")}
    assert 0 < len(finished) < 6
    assert not (out / "manifest.json").exists()
    manifest = compute(file, out)
    assert len(manifest.parts) == 6
    assert {path: path.read_bytes() for path in finished} == finished
    compute(file, tmp_path / "at once")
    assert all_without_times(out) == all_without_times(tmp_path / "at once")
    assert not list(out.rglob(".*"))
    assert not (out / "observations.parquet").exists()


def test_a_folder_of_another_computation_is_left_alone(write, compute, run, bundle, tmp_path):
    compute(write(5), tmp_path / "out")
    before = index_of(tmp_path / "out")
    with pytest.raises(PlanError, match="other observations"):
        compute(write(6), tmp_path / "out")
    with pytest.raises(PlanError, match="other expires_at"):
        plan_edits(write(5), run.path, bundle.path, tmp_path / "out", 2 * WEEK)
    assert index_of(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"", "expected a .csv or .parquet file"),
        ("a.csv", b"device,observation\nx,y\n", "sequence"),
        ("a.csv", b"device,sequence,observation\nx,one,y\n", "one"),
        ("a.parquet", b"PAR0", "cannot be read"),
    ],
)
def test_a_file_that_is_no_table_of_observations_leaves_nothing_behind(
    name, content, said, run, bundle, tmp_path
):
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    with pytest.raises(PlanError, match=said):
        plan_edits(tmp_path / name, run.path, bundle.path, out, WEEK)
    assert not out.exists()


def told(*words):
    result = CliRunner().invoke(main, [*map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


def test_the_command_says_what_it_made(write, run, bundle, tmp_path):
    words = ["edits", write(70, changed={5: b""}), "--run", run.path, "--bundle", bundle.path]
    code, said = told(*words, "--out", tmp_path / "out")
    assert (code, said["edits"], said["refused"]) == (0, 69, {"container.truncated": 1})
    code, again = told(*words, "--out", tmp_path / "out")
    assert (code, again["edits"], again["parts_made_now"]) == (0, 69, 0)


def test_after_a_new_key_the_command_signs_with_the_one_that_the_cloud_signs_with(
    write, run, bundle, tmp_path
):
    own, database = tmp_path / "own", f"sqlite:///{tmp_path / 'cloud.sqlite'}"
    shutil.copytree(run.path, own)
    keys, first = SigningKeys(Store(database), own / "keys"), load_run(own).edit_key()
    words = ["edits", write(3), "--run", own, "--bundle", bundle.path, "--database", database]
    told(*words, "--out", tmp_path / "before")
    new = keys.add("edit")
    keys.revoke(first.id)
    told(*words, "--out", tmp_path / "after")
    for out, key in (("before", first.public), ("after", new.public_key)):
        for row in index_of(tmp_path / out):
            data, trusted = bytes_of(tmp_path / out, row), PublicKeys([key])
            assert trusted.verifies(row["key_id"], row["signature"], data)
    (file,) = (own / "keys").glob("edit-*.pem")
    file.unlink()
    _, said = told(*words, "--out", tmp_path / "without")
    assert "no private key that devices trust" in said["error"]["message"]


def test_without_ray_the_command_says_how_to_get_it(write, run, bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    words = [
        "edits",
        write(5),
        "--run",
        run.path,
        "--bundle",
        bundle.path,
        "--out",
        tmp_path / "out",
    ]
    code, said = told(*words, "--ray", "local")
    assert (code, said["error"]["code"]) == (2, "usage.ray")
    assert "pip install 'persona-edge[ray]'" in said["error"]["message"]
    assert not (tmp_path / "out").exists()


@pytest.fixture
def with_ray():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("NOT TESTED with Ray: pip install 'persona-edge[ray]'")


@pytest.mark.usefixtures("with_ray")
@pytest.mark.parametrize(
    ("count", "part_rows"), [(320, 64), pytest.param(100_000, None, marks=pytest.mark.slow)]
)
def test_two_workers_of_a_ray_cluster_make_the_same_bytes(
    write, compute, run, bundle, tmp_path, count, part_rows
):
    from persona.offline_ray import make_on_ray

    file, out, counted = write(count, changed={1: b""}), tmp_path / "ray", []
    plan = plan_edits(file, run.path, bundle.path, out, WEEK, part_rows)
    start = time.perf_counter()
    make_on_ray(
        unfinished(plan, out), run.path, bundle.path, out, "local", lambda *n: counted.append(n), 2
    )
    seconds = time.perf_counter() - start
    print(f"{count} observations on two workers in {seconds:.1f} s, the cluster's start included")
    assert unfinished(plan, out) == []
    assert [sum(column) for column in zip(*counted, strict=True)] == [count - 1, 1]
    finish(plan, out)
    compute(file, tmp_path / "one process", part_rows=part_rows)
    assert all_without_times(out) == all_without_times(tmp_path / "one process")


@pytest.mark.usefixtures("with_ray")
def test_a_cluster_that_is_not_there_is_named(write, run, bundle, tmp_path):
    words = [
        "edits",
        write(5),
        "--run",
        run.path,
        "--bundle",
        bundle.path,
        "--out",
        tmp_path / "out",
    ]
    code, said = told(*words, "--ray", "127.0.0.1:1")
    assert (code, said["error"]["code"]) == (2, "usage.ray")
    assert "127.0.0.1:1" in said["error"]["message"]
