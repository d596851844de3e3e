"""What people and scripts meet: exit codes, one JSON object, help that teaches, clean Ctrl-C."""

import json
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from persona.cli import main
from persona.cli.simulated import unseen_users
from persona.device.device import Device
from persona.formats.bundle_tensors import encode_golden
from persona.formats.observation import Envelope, to_json, to_safetensors
from persona.runs import last_bundle
from persona.signing import SigningKey
from persona.training.pipeline import open_dataset
from persona_export.runner.toolchain import missing_packages

DONE, CHECK_FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
SECONDS = 120


def commands(group: click.Group, path: str = "persona") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(main))

TINY = """
name = "tiny"
[data]
name = "digits"
[backbone]
name = "image-net"
settings = {{ width = 4, hidden = 8 }}
steps = {steps}
checks = 1
[adapter]
devices = 16
validation_devices = 8
latent = 4
hidden = 8
steps = 10
checks = 1
[prototypes]
count = 2
steps = 5
"""


# -- Help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_teaches(name):
    command = COMMANDS[name]
    arguments = name.split()[1:]
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert result.exit_code == DONE
    first = (command.help or "").strip().partition("\n")[0]
    assert len(first.split()) >= 4
    assert first in " ".join(result.stdout.split()) or first[:40] in result.stdout
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]} is not described"
            assert option.opts[0] in result.stdout
    assert any("--json" in p.opts for p in command.params), "every command speaks to machines"


def test_the_commands_of_the_project_are_all_there():
    tops = {name.split()[1] for name in COMMANDS}
    wanted = "data demo train evaluate export bundle edit edits serve refine operator device bench"
    assert tops == {*wanted.split(), "targets", "backbones", "datasets", "rivals"}
    whole = CliRunner().invoke(main, ["--help"]).stdout
    assert "Exit codes: 0 done, 1 the check failed, 2 wrong usage." in whole


@pytest.mark.parametrize(
    ("listing", "members"),
    [
        ("targets", {"executorch-xnnpack", "coreml"}),
        ("backbones", {"image-net", "sasrec"}),
        ("datasets", {"digits", "drifting-interests", "interactions"}),
        ("rivals", {"prior-correction"}),
    ],
)
def test_listings_say_what_is_registered_and_what_it_is(persona, listing, members):
    code, said = persona(listing)
    assert code == DONE
    assert members <= set(said)
    assert all(len(summary.split()) > 3 for summary in said.values())
    plain = CliRunner().invoke(main, [listing])
    assert plain.exit_code == DONE
    assert all(name in plain.stdout for name in members)


# -- Wrong usage


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["train"],
        ["train", "digits"],
        ["export", "run", "--precision", "fp7", "--out", "x"],
        ["serve", "run", "--port", "70000"],
        ["bench", "bundle", "--iterations", "0"],
        ["demo", "--devices", "5"],
        ["edit", "show", "/no/such/file"],
        ["device"],
        ["edit", "observe", "bundle"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_read_is_wrong_usage(refused, arguments):
    assert refused(WRONG_USAGE, "usage.command", *arguments)


def test_unknown_names_are_answered_with_those_there_are(refused, digits_run, tmp_path):
    out = tmp_path / "out"
    message = refused(WRONG_USAGE, "usage.config", "train", "digitz", "--out", out)
    assert "digits-quick" in message
    message = refused(
        WRONG_USAGE, "usage.name", "export", digits_run.path, "--target", "tpu", "--out", out
    )
    assert "executorch-xnnpack" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["export", "--out", "{out}"], ["evaluate", "--out", "{out}"], ["serve", "--port", "0"]],
    ids=lambda a: a[0],
)
@pytest.mark.parametrize("fault", ["no run", "other version", "changed file"])
def test_a_folder_that_is_no_run_of_this_version_is_wrong_usage(
    refused, digits_run, digits_bundle, tmp_path, arguments, fault
):
    run = tmp_path / "run"
    if fault == "no run":
        run.mkdir()
        says = "is not a run: it has no run.json; make one with `persona train`"
    else:
        shutil.copytree(digits_run.path, run)
        if fault == "other version":
            record = json.loads((run / "run.json").read_text())
            record["format"], record["versions"]["persona"] = "persona.run/7", "3.2.1"
            (run / "run.json").write_text(json.dumps(record))
            says = r"'persona\.run/7', made by version 3\.2\.1; this version .* train again"
        else:
            (run / "adapter.safetensors").write_bytes(b"")
            says = r"adapter\.safetensors was changed since training; train again or restore it"
    command, *rest = arguments
    rest = [a.format(out=tmp_path / "out") for a in rest]
    if command == "serve":
        rest += ["--bundle", digits_bundle.path]
    message = refused(WRONG_USAGE, "usage.run", command, run, *rest)
    assert re.search(says, message), message
    assert not (tmp_path / "out").exists()


def test_a_port_in_use_is_wrong_usage(refused, digits_run, digits_bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = ("serve", digits_run.path, "--bundle", digits_bundle.path, "--port", port)
        message = refused(WRONG_USAGE, "usage.portinuse", *arguments)
    assert f"port {port} is in use on 127.0.0.1" in message
    assert "choose another port" in message


def test_no_permission_to_write_is_wrong_usage_before_any_work(refused, digits_run, below_a_file):
    start = time.monotonic()
    for command in (["train", "digits"], ["export", digits_run.path], ["demo"]):
        message = refused(WRONG_USAGE, "usage.place", *command, "--out", below_a_file)
        assert "choose another place" in message
    refused(WRONG_USAGE, "usage.place", "evaluate", digits_run.path, "--out", below_a_file)
    assert time.monotonic() - start < 20
    assert below_a_file.parent.is_file()


def test_a_device_without_a_place_of_its_own_is_wrong_usage(refused, digits_bundle, below_a_file):
    arguments = ("device", digits_bundle.path, "--cloud", "http://127.0.0.1:9")
    message = refused(WRONG_USAGE, "usage.place", *arguments, "--folder", below_a_file)
    assert "choose another folder" in message


def test_an_address_that_is_none_is_wrong_usage(refused, digits_bundle):
    message = refused(WRONG_USAGE, "usage.address", "device", digits_bundle.path, "--cloud", "x")
    assert "http://127.0.0.1:8080" in message


@pytest.mark.parametrize("command", [["train", "digits"], ["export", "{run}"], ["demo"]])
def test_a_place_that_is_taken_is_wrong_usage_and_stays(refused, digits_run, tmp_path, command):
    (tmp_path / "thesis.tex").write_text("mine")
    command = [part.format(run=digits_run.path) for part in command]
    message = refused(WRONG_USAGE, "usage.place", *command, "--out", tmp_path)
    assert "exists already; choose another place or remove it first" in message
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


# -- Train, evaluate, export


@pytest.fixture(scope="module")
def trained(persona, tmp_path_factory) -> Path:
    """A run made by `persona train` from a file."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "my.toml").write_text(TINY.format(steps=20))
    code, said = persona("train", folder / "my.toml", "--out", folder / "run")
    assert code == DONE
    assert set(said["loss"]) == {"backbone", "adapter", "prototypes"}
    return folder / "run"


def test_a_trained_run_is_whole_and_alone(trained):
    names = {p.name for p in trained.parent.iterdir()}
    assert names == {"my.toml", "run"}
    assert (trained / "run.json").is_file()


def test_evaluate_writes_report_and_results(persona, trained, tmp_path):
    out = tmp_path / "evaluated"
    code, said = persona("evaluate", trained, "--out", out, "--devices", 6, "--seeds", 1)
    assert code == DONE
    assert said["devices"] == 6
    for name in ("static", "prototype", "edited", "other_device_control"):
        estimate = said["accuracy"][name]
        assert 0 <= estimate["low"] <= estimate["mean"] <= estimate["high"] <= 1
    assert {p.name for p in out.iterdir()} == {"report.html", "results.json", "results.md"}
    written = json.loads((out / "results.json").read_text())
    assert written["static"] == said["accuracy"]["static"]
    command = f"persona evaluate {trained.name} --devices 6 --seeds 1"
    assert written["made_by"]["command"] == command


@pytest.mark.parametrize("given", [["--quick"], ["--jobs", 2], ["--quick", "--jobs", 1]])
def test_a_run_is_scored_as_it_is_and_options_that_train_are_refused(
    refused, trained, tmp_path, given
):
    out = tmp_path / "evaluated"
    message = refused(WRONG_USAGE, "usage.command", "evaluate", trained, "--out", out, *given)
    named = [option for option in given if isinstance(option, str)]
    assert message.startswith(" and ".join(named))
    assert "is a run, which is scored as it is" in message
    assert not out.exists()


def test_evaluating_a_configuration_trains_it_and_goes_on_where_it_was(persona, tmp_path):
    config, out = tmp_path / "tiny.toml", tmp_path / "study"
    config.write_text(TINY.format(steps=30) + "[evaluation]\ntrainings = 1\ndevices = 6\n")
    code, said = persona("evaluate", config, "--out", out)
    assert (code, said["devices"]) == (DONE, 6)
    assert {"apg", "duet-repaired", "static-same-budget"} <= set(said["accuracy"]["rivals"])
    assert {p.name for p in out.iterdir()} == {
        "report.html",
        "results.json",
        "results.md",
        "trainings",
    }
    code, more = persona("evaluate", config, "--out", out, "--seeds", 2)
    assert (code, more["devices"], more["seeds"]) == (DONE, 12, [0, 1])


def test_a_study_leaves_a_folder_of_something_else_alone(refused, tmp_path):
    config, out = tmp_path / "tiny.toml", tmp_path / "mine"
    config.write_text(TINY.format(steps=30))
    out.mkdir()
    (out / "precious").write_text("")
    assert "exists already" in refused(WRONG_USAGE, "usage.place", "evaluate", config, "--out", out)
    assert [p.name for p in out.iterdir()] == ["precious"]


def test_a_study_that_finds_no_data_leaves_nothing(refused, tmp_path):
    out = tmp_path / "study"
    message = refused(
        WRONG_USAGE, "usage.data", "evaluate", "cifar10", "--data", tmp_path, "--out", out
    )
    assert "data_batch_1.bin" in message
    assert not out.exists()


def test_export_of_all_targets_says_what_was_left_out_and_why(persona, trained, tmp_path):
    out = tmp_path / "bundle"
    code, said = persona("export", trained, "--precision", "fp16", "--out", out)
    assert code == DONE
    assert said["programs"] == {
        "coreml fp16": "interpreted",
        "executorch-coreml fp16": said["programs"]["executorch-coreml fp16"],
        "executorch-vulkan fp16": "lowered",
        "executorch-xnnpack fp16": "executed",
    }
    assert list(said["left_out"]) == ["executorch-qnn fp16"]
    assert "download Qualcomm AI Engine Direct" in said["left_out"]["executorch-qnn fp16"]
    for row in said["report"].values():
        assert sum(row["files"].values()) > 0
        assert row["seconds"] > 0
    assert {"torch", "executorch", "coremltools"} <= set(said["versions"])
    assert last_bundle(trained).resolve() == out.resolve()
    code, said = persona("bundle", "verify", out)
    assert code == DONE
    vulkan = said["programs"]["executorch-vulkan fp16"]
    assert vulkan["passed"] is None
    assert "no runtime on this machine executes executorch-vulkan" in vulkan["reason"]


def test_several_precisions_go_into_one_bundle(persona, trained, tmp_path):
    arguments = ("--target", "executorch-xnnpack", "--precision", "fp32,int8")
    code, said = persona("export", trained, *arguments, "--out", tmp_path / "bundle")
    assert code == DONE
    assert said["programs"] == {
        "executorch-xnnpack fp32": "executed",
        "executorch-xnnpack int8": "executed",
    }


def test_a_target_named_twice_is_exported_once(persona, trained, tmp_path):
    twice = ("--target", "coreml", "--target", "coreml")
    code, said = persona("export", trained, *twice, "--out", tmp_path / "bundle")
    assert (code, said["programs"]) == (DONE, {"coreml fp16": "interpreted"})


def test_a_named_target_that_cannot_be_written_fails_the_export(refused, trained, tmp_path):
    arguments = ("--target", "executorch-qnn", "--precision", "int8")
    message = refused(
        CHECK_FAILED, "export.failed", "export", trained, *arguments, "--out", tmp_path / "bundle"
    )
    assert message.startswith("executorch-qnn has no int8; it has fp16: ")
    assert "the quantiser of Qualcomm's SDK" in message
    assert "Nothing was downloaded" in message
    assert not list(tmp_path.iterdir())


# -- Bundle


def test_bundle_show_says_what_it_holds(persona, digits_bundle):
    code, said = persona("bundle", "show", digits_bundle.path)
    assert code == DONE
    assert said["digest"] == digits_bundle.digest
    assert said["slots"] == {"head.0": "dense 8×8", "head.2": "dense 10×8"}
    assert set(said["programs"]) == {"executorch-xnnpack fp32", "coreml fp16"}


def test_bundle_verify_runs_every_program(persona, digits_run, digits_bundle):
    pinned = digits_run.path / "keys" / "bundles.pem.pub"
    code, said = persona("bundle", "verify", digits_bundle.path, "--trust", pinned)
    assert code == DONE
    assert said["pinned"] is True
    rows = said["programs"]
    assert rows.pop("coreml fp16, package") == {"passed": True, "faults": []}
    assert {"executorch-xnnpack fp32", "executorch-xnnpack fp32, C++", "coreml fp16"} <= set(rows)
    if missing_packages("native"):
        assert "install" in rows.pop("executorch-xnnpack fp32, C++")["reason"]
    if "C++ on arm64" in rows:
        assert "make arm" in rows.pop("C++ on arm64")["reason"]
    for row in rows.values():
        assert row["passed"]
        figures = [row[name] for name in ("base", "prototypes", "edited", "observed")]
        assert 0 < max(figures) <= row["tolerance"]


def test_bundle_verify_says_what_the_cpp_runner_needs_where_it_cannot_be_built(
    persona, digits_bundle, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    code, said = persona("bundle", "verify", digits_bundle.path)
    assert code == DONE
    row = said["programs"]["executorch-xnnpack fp32, C++"]
    assert row["passed"] is None
    assert "tools are missing; install cmake make g++" in row["reason"]
    assert "qemu-user-static" in said["programs"]["C++ on arm64"]["reason"]


def test_bundle_verify_fails_on_a_flipped_bit(refused, digits_bundle, tmp_path):
    path = Path(shutil.copytree(digits_bundle.path, tmp_path / "bundle"))
    program = path / "executorch" / "xnnpack.pte"
    data = bytearray(program.read_bytes())
    data[len(data) // 2] ^= 1
    program.write_bytes(data)
    for command in (["bundle", "verify"], ["bundle", "show"], ["bench"]):
        message = refused(CHECK_FAILED, "bundle.file_changed", *command, path)
        assert "executorch/xnnpack.pte" in message


def test_bundle_verify_of_a_program_that_differs_prints_one_object_with_every_row(
    persona, digits_bundle, digits_run, resigned, tmp_path
):
    manifest, golden = digits_bundle.manifest, digits_bundle.golden
    ports = (manifest.slots, manifest.inputs, manifest.outputs[0], manifest.observation)
    wrong = replace(golden, edited=tuple(o + np.float32(2e-3) for o in golden.edited))
    files = {"golden.safetensors": encode_golden(*ports, wrong)}
    resigned(digits_bundle, digits_run, tmp_path / "bundle", files)
    code, said = persona("bundle", "verify", tmp_path / "bundle")
    assert code == CHECK_FAILED
    assert said["error"]["code"] == "bundle.program_differs"
    assert "differs from PyTorch" in said["error"]["message"]
    passed = {name: row["passed"] for name, row in said["programs"].items()}
    here = {
        "executorch-xnnpack fp32": False,
        "executorch-xnnpack fp32, C++": None if missing_packages("native") else False,
        "coreml fp16, package": True,
        "coreml fp16": True,
    }
    assert passed | here == passed
    on_arm = [row["passed"] for name, row in said["programs"].items() if name not in here]
    assert on_arm in ([None], [False, False])


def test_a_pinned_key_of_someone_else_fails_the_check(refused, digits_bundle, tmp_path):
    SigningKey.load_or_create(tmp_path / "stranger.pem")
    pinned = ("--trust", tmp_path / "stranger.pem.pub")
    refused(CHECK_FAILED, "bundle.unknown_key", "bundle", "show", digits_bundle.path, *pinned)
    private = ("--trust", tmp_path / "stranger.pem")
    message = refused(
        WRONG_USAGE, "usage.signingkey", "bundle", "show", digits_bundle.path, *private
    )
    assert "stranger.pem.pub" in message


def test_bench_compares_and_a_bundle_without_our_program_says_so(
    persona, refused, digits_bundle, digits_run, resigned, tmp_path
):
    code, said = persona("bench", digits_bundle.path, "--iterations", 20)
    assert code == DONE
    assert said["ratio"] == said["edited"]["p50_us"] / said["base"]["p50_us"]
    manifest = json.loads((digits_bundle.path / "manifest.json").read_text())
    core_ml = [p for p in manifest["programs"] if p["target"] == "coreml"]
    resigned(digits_bundle, digits_run, tmp_path / "bundle", {}, programs=core_ml)
    message = refused(WRONG_USAGE, "usage.engine", "bench", tmp_path / "bundle")
    assert "--target executorch-xnnpack" in message


# -- Edit


@pytest.fixture(scope="module")
def observed(digits_run, digits_bundle, tmp_path_factory) -> Path:
    """A device's observation, as .json and .safetensors."""
    folder = tmp_path_factory.mktemp("observed")
    (user,) = open_dataset(digits_run.record.config, None).devices("test", 1, 0)
    phone = Device(digits_bundle, folder / "phone")
    envelope = Envelope(digits_bundle.digest, phone.observe(user.window))
    (folder / "seen.safetensors").write_bytes(to_safetensors(envelope))
    (folder / "seen.json").write_text(json.dumps(to_json(envelope)))
    other = replace(envelope, bundle="ab" * 32)
    (folder / "elsewhere.json").write_text(json.dumps(to_json(other)))
    (folder / "broken.json").write_bytes(b'{"\xff')
    return folder


@pytest.fixture
def made(persona, digits_run, digits_bundle, observed, tmp_path) -> Path:
    path = tmp_path / "made.safetensors"
    arguments = ["--bundle", digits_bundle.path, "--device", "me", "--sequence", 3]
    seen = observed / "seen.safetensors"
    code, said = persona(
        "edit", "make", digits_run.path, *arguments, "--observation", seen, "--out", path
    )
    assert code == DONE
    assert said["bytes"] == path.stat().st_size
    return path


def test_an_edit_is_made_shown_and_verified(persona, made, digits_bundle):
    code, shown = persona("edit", "show", made)
    assert code == DONE
    assert shown["metadata"]["device"] == "me"
    assert shown["metadata"]["bundle"] == digits_bundle.digest
    assert shown["tensors"]["head.0.weight"]["shape"] == [8, 8]
    assert "probe.expected" in shown["tensors"]
    arguments = ("--bundle", digits_bundle.path, "--device", "me")
    code, verdict = persona("edit", "verify", made, *arguments)
    assert (code, verdict) == (DONE, {"verdict": "ok", "sequence": 3})


def test_json_and_safetensors_observations_make_the_same_edit(
    persona, made, digits_run, digits_bundle, observed, tmp_path
):
    other = tmp_path / "other"
    arguments = ["--bundle", digits_bundle.path, "--device", "me", "--sequence", 3]
    seen = observed / "seen.json"
    persona("edit", "make", digits_run.path, *arguments, "--observation", seen, "--out", other)
    tensors = [persona("edit", "show", path)[1]["tensors"] for path in (made, other)]
    assert tensors[0] == tensors[1]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        (("--device", "you"), "edit.other_device"),
        (("--device", "me", "--sequence", "3"), "edit.replayed"),
    ],
)
def test_an_edit_for_another_device_or_replayed_fails(refused, made, digits_bundle, changed, code):
    refused(CHECK_FAILED, code, "edit", "verify", made, "--bundle", digits_bundle.path, *changed)


@pytest.mark.parametrize("spoiled", ["edit", "signature", "signature garbage", "no signature"])
def test_a_tampered_edit_fails_with_its_code(refused, made, digits_bundle, spoiled):
    signature = made.with_name(f"{made.name}.sig")
    path = made if spoiled == "edit" else signature
    data = bytearray(path.read_bytes())
    data[len(data) - 20] ^= 1
    if spoiled == "no signature":
        path.unlink()
    else:
        path.write_bytes(b"\xff" if spoiled == "signature garbage" else data)
    arguments = ("--bundle", digits_bundle.path, "--device", "me")
    refused(CHECK_FAILED, "edit.bad_signature", "edit", "verify", made, *arguments)


def test_an_edit_of_another_bundle_fails(refused, made, sasrec_bundle):
    arguments = ("--bundle", sasrec_bundle.path, "--device", "me")
    refused(CHECK_FAILED, "edit.unknown_key", "edit", "verify", made, *arguments)


def test_showing_what_is_no_edit_fails(refused, observed):
    refused(CHECK_FAILED, "container.header_too_long", "edit", "show", observed / "seen.json")


@pytest.mark.parametrize(
    ("name", "code"),
    [("elsewhere.json", "observation.other_base"), ("broken.json", "observation.invalid")],
)
def test_an_observation_that_does_not_fit_makes_no_edit(
    refused, digits_run, digits_bundle, observed, tmp_path, name, code
):
    arguments = ["--bundle", digits_bundle.path, "--device", "me", "--out", tmp_path / "e"]
    refused(
        CHECK_FAILED,
        code,
        *("edit", "make", digits_run.path, *arguments, "--observation", observed / name),
    )
    assert not list(tmp_path.iterdir())


def test_an_edit_that_cannot_be_written_is_wrong_usage(
    refused, digits_run, digits_bundle, observed, below_a_file
):
    arguments = ["--bundle", digits_bundle.path, "--device", "me", "--out", below_a_file]
    seen = observed / "seen.json"
    refused(
        WRONG_USAGE,
        "usage.place",
        *("edit", "make", digits_run.path, *arguments, "--observation", seen),
    )


def test_a_bundle_of_another_run_makes_no_edit(refused, digits_run, sasrec_bundle, tmp_path):
    seen = tmp_path / "seen.json"
    items = {"format": "persona.observation/1", "kind": "items", "bundle": sasrec_bundle.digest}
    seen.write_text(json.dumps({**items, "items": [1, 2, 3]}))
    arguments = ["--bundle", sasrec_bundle.path, "--device", "me", "--out", tmp_path / "e"]
    message = refused(
        WRONG_USAGE,
        "usage.othermodel",
        *("edit", "make", digits_run.path, *arguments, "--observation", seen),
    )
    assert "export this run again" in message


def test_an_observed_device_can_have_an_edit_made(persona, digits_run, digits_bundle, tmp_path):
    seen, made = tmp_path / "seen.json", tmp_path / "made.safetensors"
    code, said = persona("edit", "observe", digits_bundle.path, "--seed", 3, "--out", seen)
    assert code == DONE
    (user,) = unseen_users(digits_bundle, None, 1, 3)
    assert said["device"] == user.name
    expected = Device(digits_bundle, tmp_path / "phone").observe(user.window)
    assert json.loads(seen.read_text()) == to_json(Envelope(digits_bundle.digest, expected))
    arguments = ("--bundle", digits_bundle.path, "--observation", seen, "--out", made)
    code, _ = persona("edit", "make", digits_run.path, "--device", "me", *arguments)
    assert (code, made.is_file()) == (DONE, True)


def test_an_edit_is_for_somebody(refused, digits_run, digits_bundle, observed, tmp_path):
    seen = observed / "seen.safetensors"
    arguments = ("--bundle", digits_bundle.path, "--observation", seen, "--out", tmp_path / "e")
    message = refused(
        WRONG_USAGE, "usage.command", "edit", "make", digits_run.path, "--device", " ", *arguments
    )
    assert "a device has a name" in message


# -- Serve and device


def test_a_device_without_a_cloud_runs_its_prototype(persona, digits_bundle):
    code, said = persona("device", digits_bundle.path)
    assert (code, said["state"]) == (DONE, "OnPrototype")
    assert "no --cloud was named" in said["problem"]


def test_a_device_of_other_data_than_the_bundles_is_refused(refused, digits_bundle, monkeypatch):
    monkeypatch.setattr("persona.data.digits.Digits.fingerprint", lambda _self: "0" * 64)
    message = refused(WRONG_USAGE, "usage.data", "device", digits_bundle.path)
    assert "these have 000000000000" in message


def test_a_device_gets_its_edit_from_a_served_cloud_and_goes_on_without_it(
    persona, start, digits_run, digits_bundle, tmp_path
):
    database = f"sqlite:///{tmp_path / 'cloud.sqlite'}"
    arguments = ("--bundle", digits_bundle.path, "--port", 0, "--database", database, "--json")
    device = ("device", digits_bundle.path, "--folder", tmp_path / "phone", "--cloud")
    with start("serve", digits_run.path, *arguments) as serving:
        try:
            text = ""
            while not text.rstrip().endswith("}"):
                line = serving.stdout.readline()
                assert line, serving.stderr.read()
                text += line
            url = json.loads(text)["url"]
            code, said = persona(*device, url)
        finally:
            serving.send_signal(signal.SIGINT)
        assert serving.wait(SECONDS) == DONE, "Ctrl-C is how serving ends"
    assert (code, said["state"], said["problem"]) == (DONE, "OnEdit", None)
    assert 0 <= said["after"] <= 1
    code, later = persona(*device, url)
    assert (code, later["state"], later["device"]) == (DONE, "OnEdit", said["device"])
    assert "did not answer" in later["problem"]
    fresh = ("device", digits_bundle.path, "--cloud", url)
    code, alone = persona(*fresh)
    assert (code, alone["state"], alone["edit_bytes"]) == (DONE, "OnPrototype", None)


# -- In a process of its own


def test_exit_codes_reach_the_shell(start, digits_bundle, tmp_path):
    show = ("bundle", "show", digits_bundle.path, "--json")
    empty = ("bundle", "show", tmp_path, "--json")
    unknown = ("train", "digitz", "--out", tmp_path / "x", "--json")
    wanted = {show: DONE, empty: CHECK_FAILED, unknown: WRONG_USAGE}
    running = {arguments: start(*arguments) for arguments in wanted}
    for arguments, process in running.items():
        out, err = process.communicate(timeout=SECONDS)
        assert process.returncode == wanted[arguments], err
        json.loads(out)
        assert "Traceback" not in err
        assert bool(err.strip()) == (process.returncode != DONE)


def wait_for(found, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + SECONDS
    while not found():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def interrupted(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == INTERRUPTED, err
    assert "interrupted; nothing half written remains" in err
    assert "Traceback" not in err


def test_ctrl_c_while_training_leaves_nothing(start, tmp_path):
    (tmp_path / "my.toml").write_text(TINY.format(steps=1_000_000))
    process = start("train", tmp_path / "my.toml", "--out", tmp_path / "run")

    def loaded() -> bool:
        maps = Path(f"/proc/{process.pid}/maps").read_text()
        return "libtorch_cpu" in maps and "sklearn" in maps

    wait_for(loaded, process)
    time.sleep(3)
    interrupted(process)
    assert [p.name for p in tmp_path.iterdir()] == ["my.toml"]


@pytest.mark.parametrize("moment", ["staged", "first program written"])
def test_ctrl_c_while_exporting_leaves_nothing(start, digits_run, tmp_path, moment):
    pattern = {"staged": ".bundle.partial-*", "first program written": "*/coreml/fp16"}[moment]
    target = ("--target", "coreml", "--target", "executorch-xnnpack")
    process = start("export", digits_run.path, *target, "--out", tmp_path / "bundle")
    wait_for(lambda: any(tmp_path.glob(pattern)), process)
    interrupted(process)
    assert not list(tmp_path.iterdir())
