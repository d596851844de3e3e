"""The second reader, written from the page alone, comes to every verdict of the corpus."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import second_reader as reader

HERE = Path(__file__).parent


def read_json(path: str) -> Any:
    return json.loads((HERE / path).read_text("utf-8"))


def tensors_of(path: str) -> dict[str, reader.Tensor]:
    return reader.read_container((HERE / path).read_bytes(), 1048576).tensors


EDITS = read_json("cases.json")
EXPECTATIONS = read_json("expectations.json")
PROBES = read_json("probes/cases.json")
KEYS = {key["id"]: base64.b64decode(key["public_key"]) for key in read_json("keys.json")["edits"]}


def by_name(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def device(name: str) -> reader.Device:
    known = EXPECTATIONS[name]
    return reader.Device(
        keys=KEYS,
        model=known["model"],
        bundle=known["bundle"],
        id=known["device"],
        sequence=known["sequence"],
        slots=known["slots"],
        prototype_count=known["prototype_count"],
        probe_shape=tuple(known["probe_shape"]),
        max_edit_bytes=known["max_bytes"],
    )


def verify(case: dict[str, Any]) -> reader.Container:
    file = (HERE / case["edit"]).read_bytes()
    now = reader.read_time(case["now"])
    return reader.verify(file, case["key_id"], case["signature"], device(case["expectation"]), now)


@by_name(EDITS)
def test_every_edit_gets_its_verdict(case: dict[str, Any]) -> None:
    assert reader.verdict(lambda: verify(case)) == case["verdict"]


@by_name([case for case in EDITS if case["verdict"] == "ok"])
def test_every_good_edit_gives_its_tensors_bit_for_bit(case: dict[str, Any]) -> None:
    known = EXPECTATIONS[case["expectation"]]
    edit = verify(case)
    applied = reader.apply(
        edit, known["slots"], tensors_of(known["base"]), tensors_of(known["prototypes"])
    )
    found = {"probe.expected": edit.tensors["probe.expected"]}
    for which, tensors in (("change", applied.change), ("effective", applied.effective)):
        for name, (shape, values) in tensors.items():
            data = struct.pack(f"<{len(values)}f", *values)
            found[f"{which}.{name}"] = reader.Tensor("F32", shape, data)
    assert found == tensors_of(case["expected"])
    assert applied.changes_nothing == case["changes_nothing"]
    assert edit.metadata is not None
    assert edit.metadata["sequence"] == case["sequence"]
    assert edit.metadata["prototype"] == case["prototype"]


@by_name(read_json("bundles/cases.json")["patches"])
def test_every_head_is_patched_byte_for_byte(case: dict[str, Any]) -> None:
    values = {name: (t.shape, t.values) for name, t in tensors_of(case["values"]).items()}
    after = reader.patch((HERE / case["before"]).read_bytes(), case["feeds"], values)
    assert after == (HERE / case["after"]).read_bytes()


@by_name(PROBES)
def test_every_probe_gets_its_verdict(case: dict[str, Any]) -> None:
    tensors = tensors_of("probes/probes.safetensors")
    expected, output, base = (
        tensors[f"{case['name']}.{which}"] for which in ("expected", "output", "base")
    )
    found = reader.probe(expected, output, base, case["tolerance"], case["zero"])
    assert found == case["verdict"]


@pytest.mark.parametrize(
    "name", [name for name, known in EXPECTATIONS.items() if "assignments" in known]
)
def test_every_vector_is_given_its_prototype(name: str) -> None:
    known = EXPECTATIONS[name]
    assignments = tensors_of(known["assignments"])
    prototypes = tensors_of(known["prototypes"])
    values, width = assignments["vectors"].values, known["observation_width"]
    vectors = [values[start : start + width] for start in range(0, len(values), width)]
    chosen = [reader.choose(vector, prototypes) for vector in vectors]
    assert chosen == assignments["chosen"].values
