"""A run folder gives back what was trained, or says what is wrong with it and what to do."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from persona.cli import main
from persona.data import Dataset
from persona.durable import PlaceError
from persona.registry import UnknownNameError
from persona.runs import RunError, last_bundle, load_run, remember_bundle, save_run, versions
from persona.training import pipeline
from persona.training.config import ConfigError, RunConfig
from persona.training.pipeline import Trained, train

FILES = ("backbone.safetensors", "adapter.safetensors", "prototypes.safetensors")


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def change_record(path: Path, **changes: object) -> None:
    record = json.loads((path / "run.json").read_text("utf-8"))
    (path / "run.json").write_text(json.dumps(record | changes), "utf-8")


def test_a_loaded_run_answers_as_the_trained_one_did(trained: Trained, run, unseen):
    inputs = trained.backbone.example_inputs(4)
    observations, vectors = unseen.observations, unseen.vectors
    with torch.no_grad():
        assert torch.equal(run.backbone(*inputs), trained.backbone(*inputs))
        (edit, codes), (again, codes_again) = (
            trained.adapter(observations),
            run.adapter(observations),
        )
    assert torch.equal(codes, codes_again)
    assert all(torch.equal(value, again[name]) for name, value in edit.items())
    assert torch.equal(run.bank.assign(edit), trained.bank.assign(edit))
    groups = run.bank.edits()
    assert all(torch.equal(value, groups[name]) for name, value in trained.bank.edits().items())
    assert torch.equal(run.rule.assign(vectors), trained.rule.assign(vectors))


def test_a_run_says_what_made_it(trained: Trained, run, data: Dataset):
    record = run.record
    assert record.config == trained.config
    assert record.slots == trained.slots
    assert record.observation == trained.observation
    assert record.curves == trained.curves
    assert record.data_fingerprint == data.fingerprint()
    assert record.versions == versions()
    assert record.versions["torch"] == torch.__version__
    assert set(record.files) == set(FILES)
    assert run.model == f"tiny-{record.files['backbone.safetensors'][:8]}"


def test_a_loaded_run_is_frozen_and_in_evaluation_mode(run):
    for module in (run.backbone, run.adapter, run.bank):
        assert not any(p.requires_grad for p in module.parameters())
        assert not any(m.training for m in module.modules())


def test_keys_are_made_once_and_do_not_disturb_the_run(copied_run: Path):
    first = load_run(copied_run)
    edit, bundle = first.edit_key().public, first.bundle_key().public
    again = load_run(copied_run)
    assert (again.edit_key().public, again.bundle_key().public) == (edit, bundle)
    assert edit != bundle


@pytest.mark.parametrize("what", ["missing", "a file", "empty"])
def test_what_is_no_run_is_refused_with_the_command_that_makes_one(tmp_path, what):
    path = tmp_path / "run"
    if what == "a file":
        path.write_text("")
    if what == "empty":
        path.mkdir()
    with pytest.raises(
        RunError, match=r"is not a run: it has no run.json; make one with `persona t"
    ):
        load_run(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied_run: Path, name: str):
    (copied_run / name).unlink()
    with pytest.raises(RunError, match=rf"{name} is missing; train again or restore the file"):
        load_run(copied_run)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["first", "middle", "last"])
def test_a_changed_byte_is_noticed_in_every_file(copied_run: Path, name: str, place: str):
    data = bytearray((copied_run / name).read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[place]] ^= 1
    (copied_run / name).write_bytes(data)
    with pytest.raises(RunError, match=rf"{name} was changed since training; train again"):
        load_run(copied_run)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"not JSON"])
def test_a_record_that_is_no_json_is_refused(copied_run: Path, content: bytes):
    (copied_run / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json is not JSON"):
        load_run(copied_run)


def test_another_versions_run_is_refused_with_the_version_that_made_it(copied_run: Path):
    change_record(copied_run, format="persona.run/2", versions={"persona": "7.8.9"})
    with pytest.raises(
        RunError, match=r"'persona.run/2', made by version 7.8.9.*reads.*run/1.*: tr"
    ):
        load_run(copied_run)


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", '{"versions": 3}', '{"versions": []}', "{}"]
)
def test_json_of_something_else_is_refused(copied_run: Path, content: str):
    (copied_run / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"format None, made by version \?"):
        load_run(copied_run)


def test_a_record_with_an_unknown_field_is_refused_by_name(copied_run: Path):
    change_record(copied_run, surprise=1)
    with pytest.raises(RunError, match=r"run\.json\.surprise: unknown field"):
        load_run(copied_run)


def test_tensors_that_do_not_fit_the_record_are_refused(copied_run: Path):
    record = json.loads((copied_run / "run.json").read_text("utf-8"))
    record["config"]["adapter"]["hidden"] += 1
    change_record(copied_run, config=record["config"])
    with pytest.raises(RunError, match=r"does not fit this version's Adapter.*: train again"):
        load_run(copied_run)


def test_a_damaged_record_never_ends_in_another_error(copied_run: Path):
    """One character changed anywhere: what is refused is refused with a message for people."""
    text = (copied_run / "run.json").read_text("utf-8")
    rng, said = random.Random(0), []
    for place in rng.sample(range(len(text)), 150):
        other = rng.choice('xX{}[]",:- 19')
        (copied_run / "run.json").write_text(text[:place] + other + text[place + 1 :], "utf-8")
        try:
            load_run(copied_run)
        except (RunError, ConfigError, UnknownNameError) as error:
            said.append(str(error))
    assert len(said) > 75, "most of what was changed is refused"
    assert all(len(message.split()) > 3 for message in said)


def test_an_existing_folder_is_not_overwritten(trained: Trained, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(PlaceError, match="exists already"):
        save_run(trained, {}, out, None)
    assert listing(tmp_path) == ["run"]
    assert listing(out) == ["mine"]


@pytest.mark.parametrize("moment", ["first file", "record"])
def test_saving_that_is_interrupted_leaves_nothing(trained, tmp_path, monkeypatch, moment):
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    target = "safetensors.torch.save_file" if moment == "first file" else "persona.runs.versions"
    monkeypatch.setattr(target, interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_run(trained, {}, tmp_path / "run", None)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("stage", ["backbone", "adapter", "prototypes", "device_rule"])
def test_training_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch, stage):
    """The whole command, with Ctrl-C in one of its stages."""
    (tmp_path / "tiny.toml").write_text(
        'name = "tiny"\ndata = { name = "digits" }\nprototypes = { count = 2, steps = 1 }\n'
        'backbone = { name = "image-net", steps = 1, settings = { width = 4 } }\n'
        "adapter = { devices = 8, validation_devices = 4, steps = 1 }\n"
    )
    entered = []

    def interrupt(*_arguments: object, **_named: object) -> None:
        entered.append(stage)
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, f"train_{stage}", interrupt)
    command = ["train", str(tmp_path / "tiny.toml"), "--out", str(tmp_path / "runs" / "tiny")]
    result = CliRunner().invoke(main, command)
    assert entered == [stage]
    assert result.exit_code == 130
    assert [p for p in tmp_path.rglob("*") if p.name != "tiny.toml" and p.is_file()] == []
    assert not (tmp_path / "runs" / "tiny").exists()
    assert not list(tmp_path.rglob(".*"))


def test_a_partial_folder_of_a_killed_process_is_no_run(copied_run: Path, tmp_path):
    """What SIGKILL leaves: some files and no record yet."""
    partial = tmp_path / ".tiny.partial-abc"
    copied_run.rename(partial)
    (partial / "run.json").unlink()
    with pytest.raises(RunError, match="is not a run"):
        load_run(partial)


OWN = '''
"""A backbone of one's own."""
from persona.backbones import backbones
from persona.backbones.image_net import ImageNet

@backbones.register("{name}")
class Own(ImageNet):
    """An image net that counts in threes."""

    def forward(self, *inputs):
        return 3 * super().forward(*inputs)
'''


@pytest.mark.parametrize("file", ["own_flat.py", "models/own_deep.py"])
def test_a_users_backbone_travels_with_the_run(config: RunConfig, data, tmp_path, file):
    source = tmp_path / "project" / file
    source.parent.mkdir(parents=True)
    source.write_text(OWN.format(name=source.stem))
    wanted = replace(
        config,
        backbone=replace(config.backbone, name=source.stem, file=file, steps=2, checks=1),
        adapter=replace(config.adapter, devices=16, validation_devices=8, steps=2, checks=1),
        prototypes=replace(config.prototypes, steps=2),
    )
    trained = train(wanted, data, tmp_path / "project", lambda _: lambda _done, _all: None)
    save_run(trained, data.backbone_settings(), tmp_path / "run", tmp_path / "project")
    source.unlink()
    run = load_run(tmp_path / "run")
    inputs = trained.backbone.example_inputs()
    assert torch.equal(run.backbone(*inputs), trained.backbone(*inputs))
    assert source.name in run.record.files
    (tmp_path / "run" / source.name).write_text(OWN.format(name=source.stem) + "# changed\n")
    with pytest.raises(RunError, match=rf"{source.name} was changed"):
        load_run(tmp_path / "run")


DROPPING = '''
"""A backbone that drops units while it is trained."""
from torch import nn
from persona.backbones import backbones
from persona.backbones.image_net import ImageNet

@backbones.register("own_dropping")
class Dropping(ImageNet):
    """An image net with dropout before its last layer."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.head.insert(2, nn.Dropout(0.5))

    def default_slots(self):
        return {name: {"kind": "dense"} for name in ("head.0", "head.3")}
'''


def test_a_run_whose_backbone_drops_units_is_read_with_the_adapter_it_was_trained_with(
    config: RunConfig, data, tmp_path
):
    (tmp_path / "own_dropping.py").write_text(DROPPING)
    own = replace(config.backbone, name="own_dropping", file="own_dropping.py", steps=2, checks=1)
    wanted = replace(
        config,
        backbone=own,
        adapter=replace(config.adapter, devices=16, validation_devices=8, steps=2, checks=1),
        prototypes=replace(config.prototypes, steps=2),
    )
    trained = train(wanted, data, tmp_path, lambda _: lambda _done, _all: None)
    assert trained.adapter.prior is not None
    save_run(trained, data.backbone_settings(), tmp_path / "run", tmp_path)
    loaded = load_run(tmp_path / "run")
    assert loaded.adapter.state_dict().keys() == trained.adapter.state_dict().keys()


def test_a_users_backbone_that_is_not_there_is_named(config: RunConfig, data, tmp_path):
    wanted = replace(config, backbone=replace(config.backbone, file="nowhere.py"))
    with pytest.raises(ConfigError, match=r"backbone.file: there is no .*nowhere\.py"):
        train(wanted, data, tmp_path, lambda _: lambda _done, _all: None)


def test_the_last_bundle_is_remembered(copied_run: Path, tmp_path):
    with pytest.raises(RunError, match=r"has no bundle yet: `persona export .* --out BUNDLE`"):
        last_bundle(copied_run)
    remember_bundle(copied_run, tmp_path / "one")
    remember_bundle(copied_run, tmp_path / "two")
    assert last_bundle(copied_run).resolve() == (tmp_path / "two").resolve()
    load_run(copied_run)
