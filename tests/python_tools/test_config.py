"""Configurations: presets that can be used, and errors that name the field."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from persona.backbones import backbones
from persona.cli import main
from persona.data import datasets
from persona.data.base import DataError
from persona.method.slots import SlotError
from persona.training.config import (
    BackboneConfig,
    ConfigError,
    DataConfig,
    RunConfig,
    SlotConfig,
    load_config,
    preset_names,
)
from persona.training.pipeline import build_backbone, build_slots, open_dataset

LEAST = 'name = "mine"\n[data]\nname = "digits"\n[backbone]\nname = "image-net"\n'


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> str:
        (tmp_path / "mine.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
        return str(tmp_path / "mine.toml")

    return write


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_names_what_there_is(name):
    config, folder = load_config(name)
    assert config.name == name
    assert folder is None
    assert config.data.name in datasets
    assert config.backbone.name in backbones
    assert not datasets[config.data.name].needs_root or config.data.settings is not None


@pytest.mark.parametrize("name", ["digits", "digits-quick"])
def test_the_presets_of_the_demo_can_be_built(name):
    config, _ = load_config(name)
    data = open_dataset(config, None)
    backbone = build_backbone(config, data.backbone_settings(), None)
    assert [s.name for s in build_slots(backbone, config)] == ["head.0", "head.2"]


def test_the_quick_preset_is_the_demos_with_less_training():
    quick, full = (load_config(name)[0] for name in ("digits-quick", "digits"))
    assert quick.data == full.data
    assert quick.backbone.settings == full.backbone.settings
    assert quick.backbone.steps < full.backbone.steps
    assert quick.adapter.steps < full.adapter.steps
    assert (quick.adapter.latent, quick.adapter.hidden) == (
        full.adapter.latent,
        full.adapter.hidden,
    )


def test_a_file_of_ones_own_is_read_with_its_folder(written, tmp_path):
    config, folder = load_config(written(LEAST))
    assert config == RunConfig("mine", DataConfig("digits"), BackboneConfig("image-net"))
    assert folder == tmp_path


def test_slots_of_ones_own_are_read_and_made(written):
    text = LEAST + (
        '[[backbone.slots]]\nname = "head.2"\nkind = "low-rank"\nrank = 2\nbound = 1\n'
        '[[backbone.slots]]\nname = "trunk.first.0"\nkind = "affine"\n'
    )
    config, _ = load_config(written(text))
    assert config.backbone.slots[0] == SlotConfig("head.2", "low-rank", 2, 1.0)
    backbone = build_backbone(config, {}, None)
    made = build_slots(backbone, config)
    assert [(s.name, s.kind, s.rank, s.out) for s in made] == [
        ("head.2", "low-rank", 2, 10),
        ("trunk.first.0", "affine", 0, 32),
    ]


def test_a_slot_that_the_backbone_lacks_is_named(written):
    config, _ = load_config(written(LEAST + '[[backbone.slots]]\nname = "tail"\n'))
    with pytest.raises(SlotError, match=r"'tail'; layers for dense slots are: trunk.project, head"):
        build_slots(build_backbone(config, {}, None), config)


def test_a_layer_named_twice_is_an_error_and_not_the_last_of_both(written):
    config, _ = load_config(written(LEAST + '[[backbone.slots]]\nname = "head.0"\n' * 2))
    with pytest.raises(ConfigError, match=r"each layer can be one slot, got head\.0, head\.0"):
        build_slots(build_backbone(config, {}, None), config)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", r"mine\.toml is not TOML: Invalid value"),
        ('name = "\udcff"', r"mine\.toml is not TOML: 'utf-8' codec"),
        ('name = "mine"', r"mine\.toml\.data: missing"),
        (LEAST + "stps = 5\n", r"mine\.toml\.backbone\.stps: unknown field; there are name"),
        (LEAST + 'steps = "5"\n', r"mine\.toml\.backbone\.steps: expected int, got str '5'"),
        (LEAST + "steps = 5.5\n", r"mine\.toml\.backbone\.steps: expected int"),
        (LEAST + "steps = true\n", r"mine\.toml\.backbone\.steps: expected int"),
        (LEAST + "[adapter]\ndropout = nan\n", r"adapter\.dropout: expected a finite number"),
        (LEAST + '[[backbone.slots]]\nname = "a"\nkind = "full"\n', r"slots\[0\]\.kind: expected"),
    ],
    ids=["toml", "bytes", "missing", "unknown", "text", "fraction", "truth", "nan", "choice"],
)
def test_an_error_names_the_file_and_the_field(written, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(written(text))


def test_whole_numbers_are_fine_where_fractions_are_expected(written):
    config, _ = load_config(written(LEAST + "learning_rate = 1\n"))
    assert config.backbone.learning_rate == 1.0
    assert type(config.backbone.learning_rate) is float


def test_an_unknown_preset_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match=r"'digit'; there are .*digits, digits-quick, .*or give"):
        load_config("digit")
    with pytest.raises(ConfigError, match=r"no configuration at .*mine\.toml"):
        load_config(str(tmp_path / "mine.toml"))


def test_settings_that_data_or_backbone_do_not_know_are_named():
    wanted = RunConfig("mine", DataConfig("digits", {"windw": 3}), BackboneConfig("image-net"))
    with pytest.raises(DataError, match=r"settings of data set 'digits': .*'windw'"):
        open_dataset(wanted, None)
    wanted = RunConfig("mine", DataConfig("digits"), BackboneConfig("image-net", {"widht": 3}))
    with pytest.raises(ConfigError, match=r"settings of backbone 'image-net': .*'widht'"):
        build_backbone(wanted, {}, None)


def test_data_that_needs_files_says_so():
    with_files = next(name for name in datasets if datasets[name].needs_root)
    wanted = RunConfig("mine", DataConfig(with_files), BackboneConfig("image-net"))
    with pytest.raises(DataError, match=r"needs your files: pass --data PATH"):
        open_dataset(wanted, None)


def test_the_command_ends_with_the_message_and_code_2(written, tmp_path):
    command = ["train", written(LEAST + "stps = 5\n"), "--out", str(tmp_path / "run"), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert '"usage.config"' in result.output
    assert "stps: unknown field" in result.output
