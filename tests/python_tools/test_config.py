"""Configurations: presets that can be used, and errors that name the field."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from persona.backbones import backbones
from persona.cli import main
from persona.data import datasets
from persona.data.base import DataError
from persona.evaluation.ablations import without
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


@pytest.mark.parametrize(
    ("published", "ours"),
    [("digits-as-published", "digits-parts"), ("cifar10-as-published", "cifar10")],
)
def test_the_papers_method_is_ours_without_what_the_paper_lacks(published, ours):
    """On the same data, with the same backbone, budget and devices to be asked."""
    paper, _ = load_config(published)
    plain = without(load_config(ours)[0], "everything that the paper lacks")
    assert (paper.data, paper.backbone) == (plain.data, plain.backbone)
    share = plain.adapter.hardening_share
    assert replace(paper.adapter, hardening_share=share) == plain.adapter
    assert paper.prototypes == plain.prototypes
    assert paper.evaluation == replace(plain.evaluation, ablations=(), larger={})


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
    with pytest.raises(ConfigError, match=r"'digit'; there are .*digits-parts, .*or give"):
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


@pytest.mark.parametrize(
    ("table", "line", "said"),
    [
        ("", 'name = "my model"', "name must be letters, digits"),
        ("", "seed = -1", "seed must be 0 or more, got -1"),
        ("[backbone]", "steps = -5", "steps must be 0 or more, got -5"),
        ("[backbone]", "learning_rate = 0.0", "learning_rate must be above 0"),
        ("[backbone]", "weight_decay = -1.0", "weight_decay must be 0 or more"),
        ("[adapter]", "dropout = 1.5", "dropout must be 0 or more and below 1, got 1.5"),
        ("[adapter]", "latent = 0", "latent must be 1 or more"),
        ("[adapter]", "familiarity = 1.2", "familiarity must be 1 or less"),
        ("[adapter]", "exposure = true\nfamiliarity = 0.9", "name streams in hardening"),
        ("[adapter]", 'exposure = true\nhardening = ["short"]', "set familiarity below 1"),
        ("[adapter]", "min_window = 9\nmax_window = 8", "max_window must be min_window or more"),
        ("[adapter]", "devices = 5", "prototypes.count is 8, more than the 5 devices"),
        ("[prototypes]", "joint_steps = -1", "joint_steps must be 0 or more"),
        ("[evaluation]", "devices = 1", "devices must be 2 or more"),
        ("[evaluation]", "trainings = 0", "trainings must be 1 or more"),
    ],
)
def test_a_number_out_of_its_range_is_refused_with_its_range(written, table, line, said):
    tables = {"": "", "[data]": 'name = "digits"\n', "[backbone]": 'name = "image-net"\n'}
    tables[table] = tables.get(table, "") + f"{line}\n"
    if "name =" not in tables[""]:
        tables[""] = 'name = "mine"\n' + tables[""]
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_config(written("".join(f"{title}\n{lines}" for title, lines in tables.items())))


@pytest.mark.parametrize("data", ["digits", "interactions"])
def test_a_misspelt_data_setting_is_answered_with_those_there_are(data, tmp_path):
    config = RunConfig("mine", DataConfig(data, {"windw": 3}), BackboneConfig("image-net"))
    (tmp_path / "log.csv").write_text("user_id,item_id,timestamp\n")
    with pytest.raises(DataError, match=r"'windw'.*it takes .*(window|session)"):
        open_dataset(config, tmp_path / "log.csv")


def test_a_wrong_backbone_setting_is_answered_with_those_there_are():
    for settings in ({"heads": 3}, {"heads": 0}, {"hedas": 2}):
        config = RunConfig("mine", DataConfig("interactions"), BackboneConfig("sasrec", settings))
        with pytest.raises(ConfigError, match=r"it takes items, length, dim, width, layers, heads"):
            build_backbone(config, {"items": 9, "length": 4}, None)
