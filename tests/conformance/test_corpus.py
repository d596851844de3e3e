"""The package gives the verdicts that the corpus states, and the corpus is what its generator says.

The generator computes verdicts, sums and statistics on its own; it imports nothing of the package.
"""

import base64
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from persona.bundles import verify_signed
from persona.device.gate import AskReason, Stay, decide
from persona.formats import bundle_tensors, container, observation, schema
from persona.formats.edit import EditInfo, parse_time
from persona.formats.errors import Code, FormatError
from persona.formats.keys import KeyDocument, verify_keys
from persona.formats.manifest import (
    Feed,
    File,
    Head,
    Program,
    check_files,
    decode_manifest,
    digest,
    patched_head,
    verify_manifest,
)
from persona.formats.slots import SlotSpec, effective, sum_changes, zero_edit
from persona.formats.verify import Expectation, changes_nothing, check_probe, verify_edit
from persona.signing import PublicKeys, decode_stored, read_signature

HERE = Path(__file__).parent
GENERATED = ("edits", "expected", "slots", "observations", "bundles", "probes", "keys", "drift")


def read_json(path: str) -> Any:
    return json.loads((HERE / path).read_text("utf-8"))


def arrays(path: str) -> dict[str, np.ndarray]:
    tensors, _ = container.decode((HERE / path).read_bytes())
    return {name: tensor.array() for name, tensor in tensors.items()}


EDITS = read_json("cases.json")
EXPECTATIONS = read_json("expectations.json")
OBSERVATIONS = read_json("observations/cases.json")
BUNDLES = read_json("bundles/cases.json")
PROBES = read_json("probes/cases.json")
KEYS = read_json("keys/cases.json")
DRIFTS = read_json("drift/cases.json")


def by_name(cases: list[dict[str, Any]]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def slots_of(name: str) -> tuple[SlotSpec, ...]:
    return schema.decode(tuple[SlotSpec, ...], EXPECTATIONS[name]["slots"])


def expectation(name: str) -> Expectation:
    known = EXPECTATIONS[name]
    return Expectation(
        model=known["model"],
        bundle=known["bundle"],
        device=known["device"],
        sequence=known["sequence"],
        slots=slots_of(name),
        prototypes=known["prototype_count"],
        probe_shape=tuple(known["probe_shape"]),
        max_bytes=known["max_bytes"],
    )


@pytest.fixture(scope="module")
def keys() -> dict[str, PublicKeys]:
    return {
        use: PublicKeys(base64.b64decode(key["public_key"]) for key in listed)
        for use, listed in read_json("keys.json").items()
    }


def verdict_of(action: Any, *arguments: Any) -> tuple[str, Any]:
    try:
        return "ok", action(*arguments)
    except FormatError as error:
        return error.code.value, error


@by_name(EDITS)
def test_an_edit_gets_its_verdict(case: dict[str, Any], keys: dict[str, PublicKeys]) -> None:
    verdict, found = verdict_of(
        verify_edit,
        (HERE / case["edit"]).read_bytes(),
        read_signature(case["key_id"], case["signature"]),
        keys["edits"],
        expectation(case["expectation"]),
        parse_time(case["now"]),
    )
    assert verdict == case["verdict"], found


@by_name([case for case in EDITS if case["verdict"] == "ok"])
def test_a_good_edit_changes_the_slots_bit_for_bit_as_computed_elsewhere(
    case: dict[str, Any], keys: dict[str, PublicKeys]
) -> None:
    name = case["expectation"]
    known, slots = EXPECTATIONS[name], slots_of(name)
    edit = verify_edit(
        (HERE / case["edit"]).read_bytes(),
        read_signature(case["key_id"], case["signature"]),
        keys["edits"],
        expectation(name),
        parse_time(case["now"]),
    )
    base = bundle_tensors.decode_base(slots, (HERE / known["base"]).read_bytes())
    prototypes = bundle_tensors.decode_prototypes(
        slots,
        known["prototype_count"],
        known["observation_width"],
        (HERE / known["prototypes"]).read_bytes(),
    )
    chosen = edit.info.prototype
    prototype = zero_edit(slots) if chosen is None else prototypes.changes[chosen]

    expected = arrays(case["expected"])
    found = {f"change.{n}": v for n, v in sum_changes(slots, prototype, edit.tensors).items()}
    for tensor, values in effective(slots, base, prototype, edit.tensors).items():
        found[f"effective.{tensor}"] = values
    found["probe.expected"] = edit.probe
    assert {n: v.tobytes() for n, v in found.items()} == {
        n: v.tobytes() for n, v in expected.items()
    }
    assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in expected.items()}
    assert changes_nothing(slots, prototype, edit.tensors) == case["changes_nothing"]
    assert str(edit.info.sequence) == case["sequence"]
    assert ("none" if chosen is None else str(chosen)) == case["prototype"]


@pytest.mark.parametrize("name", [n for n, e in EXPECTATIONS.items() if "assignments" in e])
def test_a_prototype_is_chosen_as_in_exact_arithmetic(name: str) -> None:
    known = EXPECTATIONS[name]
    prototypes = bundle_tensors.decode_prototypes(
        slots_of(name),
        known["prototype_count"],
        known["observation_width"],
        (HERE / known["prototypes"]).read_bytes(),
    )
    cases = arrays(known["assignments"])
    chosen = [prototypes.assign(vector) for vector in cases["vectors"]]
    assert chosen == cases["chosen"].tolist()


@by_name(PROBES)
def test_a_probe_gets_its_verdict(case: dict[str, Any]) -> None:
    tensors = arrays("probes/probes.safetensors")
    values = (tensors[f"{case['name']}.{part}"] for part in ("expected", "output", "base"))
    verdict, error = verdict_of(check_probe, *values, case["tolerance"], case["zero"])
    assert verdict == case["verdict"], error


def key_document(case: dict[str, Any], sequence: int | None = None) -> KeyDocument:
    return verify_keys(
        (HERE / case["file"]).read_bytes(),
        read_signature(case["key_id"], case["signature"]),
        PublicKeys(base64.b64decode(key) for key in case["trusted"]),
        case["sequence"] if sequence is None else sequence,
        parse_time(case["now"]),
    )


@by_name(KEYS)
def test_a_key_document_gets_its_verdict(case: dict[str, Any]) -> None:
    verdict, error = verdict_of(key_document, case)
    assert verdict == case["verdict"], error


@by_name([case for case in KEYS if case["verdict"] == "ok"])
def test_a_good_key_document_says_whom_to_trust_and_until_when(case: dict[str, Any]) -> None:
    found, expected = key_document(case), case["expected"]
    assert found.sequence == expected["sequence"]
    assert found.issued_at == parse_time(expected["issued_at"])
    assert {k: base64.b64encode(v).decode() for k, v in found.bundle_keys.items()} == {
        key["id"]: key["public_key"] for key in expected["bundle_keys"]
    }
    ends = {k: v.until for k, v in found.edit_keys.items()}
    assert ends == {
        key["id"]: key["until"] and parse_time(key["until"]) for key in expected["edit_keys"]
    }
    for moment in ("2026-06-08T10:59:59Z", "2026-06-08T11:00:00Z"):
        now = parse_time(moment)
        assert sorted(found.edit_keys_at(now)) == sorted(
            base64.b64decode(key["public_key"])
            for key in expected["edit_keys"]
            if key["until"] is None or key["until"] > moment
        )


def observed(spec: observation.ObservationSpec, case: dict[str, Any]) -> observation.Envelope:
    data = (HERE / case["file"]).read_bytes()
    match case["form"]:
        case "json":
            return observation.parse_json(spec, data)
        case "safetensors":
            return observation.from_safetensors(spec, data)
    assert isinstance(spec, observation.PooledSpec)
    window = arrays(case["file"])
    pooled = observation.pool(spec, window["features"], window["posterior"])
    return observation.Envelope(case.get("bundle", ""), pooled)


def observation_spec(family: str, name: str) -> observation.ObservationSpec:
    document = read_json(f"{family}/specs.json")[name]
    return schema.decode(
        observation.PooledSpec if document["kind"] == "pooled" else observation.ItemsSpec, document
    )


@by_name(OBSERVATIONS)
def test_an_observation_gets_its_verdict_and_vector(case: dict[str, Any]) -> None:
    spec = observation_spec("observations", case["spec"])
    verdict, found = verdict_of(observed, spec, case)
    assert verdict == case["verdict"], found
    if verdict == "ok":
        assert found.bundle == case["bundle"]
        vector = observation.observation_vector(spec, found.observation)
        expected = arrays(case["vector"])["vector"]
        if case["form"] == "window":
            np.testing.assert_allclose(vector, expected, rtol=1e-6, atol=1e-7)
        else:
            assert vector.tobytes() == expected.tobytes()


def window(spec: observation.ObservationSpec, path: str) -> observation.Observation:
    return observation.parse_json(spec, (HERE / path).read_bytes()).observation


def of_time(kept: dict[str, Any]) -> EditInfo:
    """The gate looks at nothing of an edit but its time."""
    issued_at, expires_at = parse_time(kept["issued_at"]), parse_time(kept["expires_at"])
    return EditInfo("m", "b", "d", 1, None, issued_at, expires_at)


@by_name(DRIFTS)
def test_a_gate_decides_as_worked_out_by_hand(case: dict[str, Any]) -> None:
    spec, kept = observation_spec("drift", case["spec"]), case["kept"]
    told = None if case["told"] is None else window(spec, case["told"])
    observed = window(spec, case["observed"])
    running = of_time(kept) if kept is not None and kept["runs"] else None
    found = decide(spec, told, observed, running, kept is not None, parse_time(case["now"]))
    assert case["decision"] == ("stay" if isinstance(found, Stay) else found.reason.name.lower())
    if "drift" in case:
        assert found.drift == pytest.approx(case["drift"], rel=1e-9, abs=1e-12)
    else:
        assert found.drift is None


@by_name(BUNDLES["manifests"])
def test_a_manifest_gets_its_verdict_and_its_field_is_named(
    case: dict[str, Any], keys: dict[str, PublicKeys]
) -> None:
    verdict, found = verdict_of(
        verify_manifest,
        (HERE / case["manifest"]).read_bytes(),
        read_signature(case["key_id"], case["signature"]),
        keys["bundles"],
    )
    assert verdict == case["verdict"], found
    assert case.get("field", "") in str(found)


@by_name(BUNDLES["signatures"])
@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "unpinned"])
def test_a_stored_signature_gets_its_verdict(
    case: dict[str, Any], pinned: bool, keys: dict[str, PublicKeys]
) -> None:
    verdict, found = verdict_of(
        verify_signed,
        (HERE / "bundles/complete/manifest.json").read_bytes(),
        (HERE / case["signature"]).read_bytes(),
        keys["bundles"] if pinned else None,
    )
    assert verdict == case["pinned" if pinned else "unpinned"], found


@by_name(BUNDLES["files"])
def test_a_folder_gets_its_verdict(case: dict[str, Any]) -> None:
    manifest = decode_manifest((HERE / "bundles/complete/manifest.json").read_bytes())
    found = schema.decode(dict[str, File], case["found"])
    verdict, error = verdict_of(check_files, manifest, found)
    assert verdict == case["verdict"], error


@by_name(BUNDLES["tensors"])
def test_a_bundle_s_tensor_file_gets_its_verdict(case: dict[str, Any]) -> None:
    manifest = decode_manifest((HERE / "bundles/complete/manifest.json").read_bytes())
    slots, count = manifest.slots, manifest.prototype_count
    width, ports = manifest.observation.width, (manifest.inputs, manifest.outputs[0])
    spec = manifest.observation
    if "observation" in case:
        spec = schema.decode(observation.PooledSpec, case["observation"])
    readers = {
        "base": lambda data: bundle_tensors.decode_base(slots, data),
        "prototypes": lambda data: bundle_tensors.decode_prototypes(slots, count, width, data),
        "golden": lambda data: bundle_tensors.decode_golden(slots, count, *ports, spec, data),
    }
    verdict, found = verdict_of(readers[case["kind"]], (HERE / case["file"]).read_bytes())
    assert verdict == case["verdict"], found


@by_name(BUNDLES["patches"])
def test_a_head_is_patched_byte_for_byte(case: dict[str, Any]) -> None:
    program = Program(
        target="cpu",
        precision="fp32",
        path="programs/trunk.bin",
        method="forward",
        observe_path=None,
        observe_method=None,
        feeds=schema.decode(tuple[Feed, ...], case["feeds"]),
        tolerance=1e-5,
        verified="executed",
        delegation={},
        head=Head("programs/head.bin", "forward"),
    )
    before = (HERE / case["before"]).read_bytes()
    after = patched_head(before, program, arrays(case["values"]))
    assert after == (HERE / case["after"]).read_bytes() != before


def test_the_complete_bundle_passes_all_checks(keys: dict[str, PublicKeys]) -> None:
    folder = HERE / "bundles" / "complete"
    text = (folder / "manifest.json").read_bytes()
    stored = decode_stored((folder / "manifest.sig").read_bytes())
    manifest = verify_manifest(text, stored.signature, keys["bundles"])
    (published,) = read_json("keys.json")["bundles"]
    assert stored.public_key == base64.b64decode(published["public_key"])
    sizes = {
        str(path.relative_to(folder).as_posix()): File(
            path.stat().st_size, digest(path.read_bytes())
        )
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith("manifest.")
    }
    check_files(manifest, sizes)
    assert manifest.program("cpu").path in sizes


def test_every_code_of_an_edit_has_a_case() -> None:
    found = Counter(case["verdict"] for case in EDITS) + Counter(c["verdict"] for c in PROBES)
    wanted = {
        c.value for c in Code if c.value.split(".")[0] not in ("bundle", "observation", "keys")
    }
    assert wanted | {"ok"} == set(found)
    assert all(found[code] >= 2 for code in wanted)


def test_every_code_of_key_documents_has_a_case() -> None:
    wanted = {c.value for c in Code if c.value.startswith("keys.")}
    assert {case["verdict"] for case in KEYS} == wanted | {"ok"}


def test_every_code_of_a_bundle_and_an_observation_has_a_case() -> None:
    stated = {n: cases for n, cases in BUNDLES.items() if n not in ("signatures", "patches")}
    found = {case["verdict"] for cases in (*stated.values(), OBSERVATIONS) for case in cases}
    elsewhere = {Code.BUNDLE_GOLDEN.value, Code.OBSERVATION_OTHER_BASE.value}
    wanted = {c.value for c in Code if c.value.split(".")[0] in ("bundle", "observation")}
    assert wanted - elsewhere <= found


def test_every_decision_of_a_gate_has_cases_and_drift_some_of_both_kinds() -> None:
    found = Counter(case["decision"] for case in DRIFTS)
    assert set(found) == {"stay", *(reason.name.lower() for reason in AskReason)}
    assert min(found.values()) >= 2
    assert {c["spec"] for c in DRIFTS if c["decision"] == "drifted"} == {"items", "pooled"}


def test_there_are_hundreds_of_edits_with_different_names() -> None:
    assert len({case["name"] for case in EDITS}) == len(EDITS) >= 500


def test_the_corpus_is_small_enough_for_a_repository() -> None:
    files = [path for folder in GENERATED for path in (HERE / folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_600_000


def test_generating_it_again_gives_the_same_bytes(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "generate.py"), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    generated = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    committed = {p.relative_to(HERE) for f in GENERATED for p in (HERE / f).rglob("*")}
    assert {p for p in committed if (HERE / p).is_file()} <= set(generated)
    different = [
        path for path, file in generated.items() if (HERE / path).read_bytes() != file.read_bytes()
    ]
    assert not different, "run tests/conformance/generate.py and look at what changed"


def test_the_specification_shows_the_example_as_it_is() -> None:
    page = (HERE.parents[1] / "docs" / "edit-format.md").read_text("utf-8")
    assert (HERE / "example.txt").read_text() in page
