"""A registry finds every module of its package, and says which names it knows."""

import importlib
import sys
from pathlib import Path

import pytest

from persona.backbones import backbones
from persona.backbones.image_net import ImageNet
from persona.baselines import rivals
from persona.data import Dataset, datasets
from persona.registry import Registry, UnknownNameError

MODULE = '''
from {package} import things

@things.register({name!r})
class {title}:
    """{title} things.

    More about them.
    """
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with a registry and two modules that register a class each."""
    name = f"registered_{tmp_path.name}"
    folder = tmp_path / name
    folder.mkdir()
    (folder / "__init__.py").write_text(
        f"from persona.registry import Registry\nthings = Registry('thing', {name!r})\n"
    )
    for title in ("Green", "Blue"):
        text = MODULE.format(package=name, name=title.lower(), title=title)
        (folder / f"{title.lower()}_file.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    for module in [m for m in sys.modules if m.partition(".")[0] == name]:
        del sys.modules[module]


def registry(package: str) -> Registry[type]:
    return importlib.import_module(package).things


def test_one_new_file_is_all_that_a_new_entry_takes(package, tmp_path):
    text = MODULE.format(package=package, name="red", title="Red")
    (tmp_path / package / "red_file.py").write_text(text)
    assert list(registry(package)) == ["blue", "green", "red"]
    assert registry(package)["red"].__name__ == "Red"


def test_modules_are_imported_when_a_name_is_first_looked_up(package):
    things = registry(package)
    assert f"{package}.green_file" not in sys.modules
    assert things["green"] is sys.modules[f"{package}.green_file"].Green


def test_an_unknown_name_is_answered_with_the_names_there_are(package):
    with pytest.raises(UnknownNameError, match="no thing is called 'pink'; there are: blue, green"):
        registry(package)["pink"]


def test_a_summary_is_the_first_line_of_the_docstring(package):
    assert registry(package).summaries() == {"blue": "Blue things.", "green": "Green things."}


def test_two_things_of_one_name_are_an_error_and_a_reloaded_file_is_none(package):
    things = registry(package)
    assert things["green"].__name__ == "Green"
    with pytest.raises(ValueError, match="thing 'green' is registered twice"):
        things.register("green")(type("Other", (), {}))
    module = importlib.reload(sys.modules[f"{package}.green_file"])
    assert things["green"] is module.Green


def test_the_packages_own_registries_are_complete():
    """Each module of a package registers something, so each file counts."""
    for found, base in ((backbones, "persona.backbones"), (datasets, "persona.data")):
        folder = Path(importlib.import_module(base).__file__).parent
        registering = [f for f in folder.glob("*.py") if ".register(" in f.read_text("utf-8")]
        own = [name for name in found if found[name].__module__.startswith(f"{base}.")]
        assert len(own) == len(registering)
    assert backbones["image-net"] is ImageNet
    assert issubclass(datasets["digits"], Dataset)
    assert {"constant-edit", "prior-correction", "nearest-centre"} <= set(rivals)
    for found in (backbones, datasets, rivals):
        assert all(found.summaries().values()), "each has a sentence for `persona list`"
