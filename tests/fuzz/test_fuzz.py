"""A minute of fuzzing: no reader crashes, hangs, or takes what the second reader refuses."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = 20
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed, so nothing was fuzzed: pip install atheris==3.0.0 "
    "(Linux on x86-64 only)",
)


def load_run():
    spec = importlib.util.spec_from_file_location("fuzz_run", HERE / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_run"] = module
    spec.loader.exec_module(module)
    return module


@needs_atheris
@pytest.mark.parametrize("name", ["edit", "manifest", "patcher"])
def test_no_input_breaks_a_reader(name):
    found = load_run().run(name, f"-max_total_time={SECONDS}", "-seed=7")
    assert found.finding is None, found.finding
    assert found.inputs > 1000
    assert found.coverage > 50


BROKEN = {
    "crash": ("fuzz_manifest", "decode_manifest", "lambda data: 1 // (b'\\x00' not in data)"),
    "accept": ("fuzz_edit", "verify_edit", "lambda *_: None"),
    "wrong byte": ("fuzz_patcher", "patched_head", "lambda head, *_: head[:-1] + b'?'"),
}


@needs_atheris
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_reader_is_found(fault, tmp_path):
    """A crash, a wrong accept and a wrong byte are seen, or a clean run would say nothing."""
    module, name, instead = BROKEN[fault]
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        f"import {module} as m\nm.{name} = {instead}\nm.fuzz(m.check, m.seeds(), m.mutate)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "-runs=20000", "-seed=7", f"-artifact_prefix={tmp_path}/"],
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert done.returncode != 0
    assert list(tmp_path.iterdir())
