"""The cases of a bundle: manifest, its signature, list of files, and the three tensor files."""

import base64
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wire
from .expectations import MIXED, Expectation

REMOVED = object()
PORTS = {
    "inputs": [
        {"name": "x", "dtype": "float32", "shape": [1, 4], "free": []},
        {
            "name": "candidates",
            "dtype": "int64",
            "shape": [1, -1],
            "free": [{"name": "n", "min": 1, "max": 100}],
        },
    ],
    "outputs": [
        {
            "name": "scores",
            "dtype": "float32",
            "shape": [1, -1],
            "free": [{"name": "n", "min": 1, "max": 100}],
        }
    ],
}


class Bundles:
    """The cases so far, by kind, and the files that they read."""

    def __init__(self) -> None:
        kinds = ("manifests", "signatures", "files", "tensors", "patches")
        self.cases: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
        self.files: dict[str, bytes] = {}


def bundle_cases() -> Bundles:
    """All cases of bundles."""
    bundles = Bundles()
    complete = _complete(bundles)
    _manifests(bundles, complete)
    _signatures(bundles)
    _files(bundles, complete)
    _tensors(bundles)
    _patches(bundles)
    return bundles


POOLED = {
    "kind": "pooled",
    "features": 3,
    "classes": 2,
    "min_count": 3,
    "max_count": 50,
    "training_mass": [0.5, 0.5],
}


def golden_tensors(
    expectation: Expectation, count: int = 2, pooled: bool = False
) -> dict[str, NDArray[Any]]:
    """Golden inputs and invented outputs, with 5 and then 3 candidates."""
    tensors: dict[str, NDArray[Any]] = {}
    names = ["base", *(f"prototype.{k}" for k in range(expectation.prototypes)), "edited"]
    for i in range(count):
        size = 5 - 2 * i
        tensors[f"input.{i}.x"] = wire.numbers(f"golden {i}", (1, 4))
        tensors[f"input.{i}.candidates"] = np.arange(1, size + 1, dtype="<i8")[None]
        for name in names:
            tensors[f"{name}.{i}"] = wire.numbers(f"golden {name} {i}", (1, size), 3.0)
        if pooled:
            tensors[f"features.{i}"] = wire.numbers(f"golden features {i}", (1, 3), 3.0)
            tensors[f"posterior.{i}"] = np.array([[0.25, 0.75]], "<f4")
    for name, shape in expectation.shapes.items():
        tensors[f"edit.{name}"] = wire.numbers(f"golden edit {name}", shape, 0.05)
    return tensors


def _feeds(expectation: Expectation) -> list[dict[str, Any]]:
    return [
        {
            "tensor": name,
            "index": index + 2,
            "input": None,
            "carries": "effective",
            "shape": list(values.shape),
        }
        for index, (name, values) in enumerate(expectation.base().items())
    ]


def _complete(bundles: Bundles) -> dict[str, Any]:
    """A whole bundle in `bundles/complete/`; its program is no program."""
    files = {
        "base.safetensors": MIXED.base_file(),
        "prototypes.safetensors": MIXED.prototypes_file(),
        "golden.safetensors": wire.container(golden_tensors(MIXED), {"format": "persona.golden/1"}),
        "programs/cpu.bin": b"a program would stand here",
    }
    manifest = {
        "format": "persona.bundle/1",
        "model": "sensor-net",
        "task": "classification",
        "created_at": "2026-05-01T00:00:00Z",
        **PORTS,
        "slots": [slot.to_json() for slot in MIXED.slots],
        "observation": {
            "kind": "items",
            "vocabulary": MIXED.width - 1,
            "min_count": 1,
            "max_count": 50,
        },
        "prototype_count": MIXED.prototypes,
        "base": "base.safetensors",
        "prototypes": "prototypes.safetensors",
        "golden": "golden.safetensors",
        "programs": [
            {
                "target": "cpu",
                "precision": "fp32",
                "path": "programs/cpu.bin",
                "method": "forward",
                "observe_path": None,
                "observe_method": None,
                "feeds": _feeds(MIXED),
                "tolerance": 0.0001,
                "verified": "lowered",
                "delegation": {},
            }
        ],
        "edit_keys": [
            {"id": key.id, "public_key": key.public} for key in (wire.CLOUD, wire.SECOND)
        ],
        "max_edit_bytes": 4096,
        "max_observation_bytes": 65536,
        "files": {
            path: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for path, data in files.items()
        },
        "made_by": {"note": "an example for tests"},
    }
    text = (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode()
    signature = {
        "key_id": wire.PUBLISHER.id,
        "signature": wire.text(wire.PUBLISHER.sign(text)),
        "public_key": wire.PUBLISHER.public,
    }
    for path, data in files.items():
        bundles.files[f"bundles/complete/{path}"] = data
    bundles.files["bundles/complete/manifest.json"] = text
    bundles.files["bundles/complete/manifest.sig"] = (json.dumps(signature) + "\n").encode()
    return manifest


def _replaced(document: Any, path: str, value: Any) -> Any:
    """A copy of a JSON document with the field at `path` replaced, added or removed."""
    copy = json.loads(json.dumps(document))
    *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
    place = copy
    for parent in parents:
        place = place[parent]
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value
    return copy


def _manifests(bundles: Bundles, complete: dict[str, Any]) -> None:
    """Smaller manifests than the complete one: one dense slot and one program."""
    slot = {**MIXED.slots[0].to_json(), "name": "head", "bias": False, "bias_bound": 0.0}
    feed = {**complete["programs"][0]["feeds"][0], "tensor": "head.weight"}
    small = {
        **complete,
        "slots": [slot],
        "programs": [{**complete["programs"][0], "feeds": [feed]}],
        "edit_keys": complete["edit_keys"][:1],
    }
    invalid = "bundle.manifest_invalid"

    def add(
        name: str,
        about: str,
        data: Any,
        verdict: str,
        field: str | None = None,
        signer: wire.Key = wire.PUBLISHER,
        **more: str,
    ) -> None:
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        path = f"bundles/manifests/{name}.json"
        bundles.files[path] = text
        case: dict[str, Any] = {"name": name, "about": about, "manifest": path}
        case |= {"key_id": signer.id, "signature": wire.text(signer.sign(text)), **more}
        case["verdict"] = verdict
        if field is not None:
            case["field"] = field
        bundles.cases["manifests"].append(case)

    text = json.dumps(small).encode()
    add("good", "a manifest in one line", small, "ok")
    backwards = {key: small[key] for key in reversed(small)}
    add("good-order", "key order and white space mean nothing",
        json.dumps(backwards, indent=3).encode(), "ok")  # fmt: skip
    add("good-no-free", "`free` may be absent", _replaced(small, "inputs/0/free", REMOVED), "ok")
    add("good-no-prototypes", "no prototypes", _replaced(small, "prototype_count", 0), "ok")
    add(
        "good-whole-bound",
        "a number may lack a fraction",
        _replaced(small, "slots/0/bound", 1),
        "ok",
    )
    add(
        "good-folder",
        "a program in a folder",
        _replaced(small, "programs/0/path", "programs"),
        "ok",
    )
    add("good-observe", "a program that observes",
        _replaced(small, "programs/0/observe_path", "programs/cpu.bin"), "ok")  # fmt: skip
    (program,) = small["programs"]
    add("good-two-precisions", "a target in two precisions",
        {**small, "programs": [program, {**program, "precision": "fp16"}]}, "ok")  # fmt: skip
    add("good-two-targets", "two targets in one precision",
        {**small, "programs": [program, {**program, "target": "npu"}]}, "ok")  # fmt: skip
    add("good-no-programs", "no programs", {**small, "programs": []}, "ok")
    by_name = {**feed, "index": None, "input": "head_weight"}
    add("good-feed-name", "a feed by name", _replaced(small, "programs/0/feeds/0", by_name), "ok")
    add("good-feed-name-and-index", "a feed by both",
        _replaced(small, "programs/0/feeds/0/input", "head_weight"), "ok")  # fmt: skip
    add("good-feed-change", "a feed of the change",
        _replaced(small, "programs/0/feeds/0/carries", "change"), "ok")  # fmt: skip
    weight, bias = feed, {**feed, "tensor": "head.bias", "index": 3, "shape": [3]}
    biased = _replaced(small, "slots/0", {**slot, "bias": True, "bias_bound": 1.0})
    good = {**biased, "programs": [{**program, "feeds": [weight, bias]}]}
    add("good-feeds", "two feeds", good, "ok")
    add("good-feeds-backwards", "feeds in another order",
        {**good, "programs": [{**program, "feeds": [bias, weight]}]}, "ok")  # fmt: skip
    named = [{**weight, "index": None, "input": "w"}, {**bias, "index": None, "input": "b"}]
    add("good-feeds-by-name", "two feeds by name",
        {**good, "programs": [{**program, "feeds": named}]}, "ok")  # fmt: skip
    other = [weight, {**bias, "carries": "change"}]
    for name, about, feeds in (
        ("none", "no feeds", []),
        ("missing", "a tensor that is not fed", [weight]),
        ("twice", "a tensor that is fed twice", [weight, bias, {**weight, "index": 4}]),
        ("index-twice", "two tensors at one position", [weight, {**bias, "index": 2}]),
        ("input-twice", "two tensors by one name", [named[0], {**named[1], "input": "w"}]),
        ("nowhere", "neither position nor name", [weight, {**bias, "index": None}]),
        ("index-negative", "a position below 0", [weight, {**bias, "index": -1}]),
        ("carry-both", "one feed carries the change, one what is effective", other),
    ):
        broken = {**biased, "programs": [{**program, "feeds": feeds}]}
        add(f"feeds-{name}", about, broken, invalid, "program")
    _manifests_in_two(add, small)
    second = {**program, "target": "npu", "feeds": [weight]}
    add("feeds-missing-in-second", "a tensor that the second program does not feed",
        {**good, "programs": [*good["programs"], second]}, invalid, "npu")  # fmt: skip
    add("program-twice-apart", "a target twice in one precision, one between",
        {**small, "programs": [program, {**program, "precision": "fp16"}, program]},
        invalid, "programs")  # fmt: skip
    add("good-pooled", "pooled observations", _replaced(small, "observation", POOLED), "ok")
    add("good-made-by", "`made_by` holds anything",
        _replaced(small, "made_by", {"a": [1, {"b": None}], "c": 1.5}), "ok")  # fmt: skip

    add("stranger", "by a key that the app does not trust", small, "bundle.unknown_key",
        signer=wire.STRANGER)  # fmt: skip
    add("cloud", "the cloud's key signs edits, not bundles", small, "bundle.unknown_key",
        signer=wire.CLOUD)  # fmt: skip
    add("unsigned", "no signature", small, "bundle.bad_signature", signature="")
    add("other-signature", "the signature of another manifest", small, "bundle.bad_signature",
        signature=wire.text(wire.PUBLISHER.sign(b"other")))  # fmt: skip
    add("key-before-signature", "both wrong", small, "bundle.unknown_key", key_id="",
        signature="")  # fmt: skip
    add("signature-before-json", "both wrong", b"{", "bundle.bad_signature", signature="")

    for name, about, data in (
        ("empty", "no bytes", b""),
        ("cut", "cut in the middle", text[: len(text) // 2]),
        ("array", "a list", b"[" + text + b"]"),
        ("mark", "a byte order mark", b"\xef\xbb\xbf" + text),
        ("latin", "not UTF-8", text.replace(b"sensor-net", b"sens\xf6r")),
        ("twice", "a key twice", text.replace(b'"task"', b'"task": "ranking", "task"')),
        ("twice-nested", "a key twice in a slot", text.replace(b'"rank"', b'"rank": 1, "rank"')),
        ("nan", "NaN", text.replace(b'"bound": 0.5', b'"bound": NaN')),
        ("1e400", "a number beyond binary64", text.replace(b'"bound": 0.5', b'"bound": 1e400')),
        ("many-digits", "a number of many digits",
         text.replace(b'"bound": 0.5', b'"bound": ' + b"9" * 400)),
        ("surrogate", "half a surrogate pair", text.replace(b"sensor-net", b"\\ud800")),
        ("deep", "nested too deeply",
         text.replace(b'"made_by": {', b'"made_by": {"x": ' + b"[" * 64 + b"]" * 64 + b", ")),
    ):  # fmt: skip
        add(f"json-{name}", about, data, invalid)
    add("good-depth", "nested as deeply as may be",
        text.replace(b'"made_by": {', b'"made_by": {"x": ' + b"[" * 62 + b"]" * 62 + b", "),
        "ok")  # fmt: skip

    for path in ("format", "model", "task", "created_at", "inputs", "outputs", "slots",
                 "observation", "prototype_count", "base", "prototypes", "golden", "programs",
                 "edit_keys", "max_edit_bytes", "max_observation_bytes", "files", "made_by",
                 "slots/0/kind", "inputs/0/dtype", "programs/0/observe_path",
                 "programs/0/feeds/0/index"):  # fmt: skip
        name = f"without-{path.replace('/', '-')}"
        add(name, f"{path} is missing", _replaced(small, path, REMOVED), invalid, _dotted(path))

    later = _replaced(_replaced(small, "patched_layers", []), "slots", REMOVED)
    for name, format_ in (
        ("format-2-later", "persona.bundle/2"),
        ("format-1-1", "persona.bundle/1.1"),
    ):
        about = f"{format_} with other fields: only the format is told, it has no minor versions"
        add(name, about, {**later, "format": format_}, invalid, format_)

    sha = {"size": 1, "sha256": "0" * 64}
    for name, path, value, field in (
        ("format-2", "format", "persona.bundle/2", "format"),
        ("model-empty", "model", "", "model"),
        ("model-slash", "model", "../net", "model"),
        ("model-number", "model", 7, "model"),
        ("task", "task", "regression", "task"),
        ("unknown-field", "note", "", "note"),
        ("unknown-slot-field", "slots/0/scale", 1, "slots[0].scale"),
        ("port-dtype", "inputs/0/dtype", "float16", "inputs[0].dtype"),
        ("port-shape-zero", "inputs/0/shape", [1, 0], "inputs[0]"),
        ("port-shape-minus-two", "inputs/1/shape", [1, -2], "inputs[1]"),
        ("port-free-missing", "inputs/1/free", [], "inputs[1]"),
        ("port-free-too-many", "inputs/0/free", [{"name": "n", "min": 1, "max": 2}], "inputs[0]"),
        ("no-slots", "slots", [], "slots"),
        ("slots-object", "slots", {}, "slots"),
        ("slot-twice", "slots", [slot, slot], "slots"),
        ("slot-name-empty", "slots/0/name", "", "slot"),
        ("slot-name-probe", "slots/0/name", "probe", "probe"),
        ("slot-name-probe-dot", "slots/0/name", "probe.x", "probe.x"),
        ("slot-name-slash", "slots/0/name", "head/0", "head/0"),
        ("slot-kind", "slots/0/kind", "sparse", "slots[0].kind"),
        ("slot-kind-list", "slots/0/kind", [], "slots[0].kind"),
        ("slot-out-zero", "slots/0/out", 0, "head"),
        ("slot-in-zero", "slots/0/in", 0, "head"),
        ("slot-in-negative", "slots/0/in", -4, "head"),
        ("slot-out-fraction", "slots/0/out", 3.0, "slots[0].out"),
        ("slot-out-huge", "slots/0/out", 2**53, "slots[0].out"),
        ("slot-rank", "slots/0/rank", 1, "head"),
        ("slot-low-rank-0", "slots/0/kind", "low-rank", "head"),
        ("slot-affine-in", "slots/0/kind", "affine", "head"),
        ("slot-bias-number", "slots/0/bias", 1, "slots[0].bias"),
        ("slot-bound-zero", "slots/0/bound", 0, "head"),
        ("slot-bound-negative", "slots/0/bound", -0.5, "head"),
        ("slot-bound-text", "slots/0/bound", "0.5", "slots[0].bound"),
        ("slot-bound-beyond-binary32", "slots/0/bound", 1e39, "head"),
        ("slot-bias-bound-negative", "slots/0/bias_bound", -1, "head"),
        ("observation-kind", "observation/kind", "raw", "observation.kind"),
        ("observation-kind-null", "observation/kind", None, "observation.kind"),
        ("observation-vocabulary", "observation/vocabulary", 0, "observation"),
        ("observation-min-zero", "observation/min_count", 0, "observation"),
        ("observation-max-below-min", "observation/max_count", 0, "observation"),
        ("observation-mass-short", "observation", {**POOLED, "training_mass": [1]}, "observation"),
        ("observation-mass-zero", "observation", {**POOLED, "training_mass": [1, 0]},
         "observation"),
        ("observation-features-zero", "observation", {**POOLED, "features": 0}, "observation"),
        ("prototypes-negative", "prototype_count", -1, "prototype_count"),
        ("prototypes-true", "prototype_count", True, "prototype_count"),
        ("base-unlisted", "base", "other.safetensors", "other.safetensors"),
        ("golden-unlisted", "golden", "other.safetensors", "other.safetensors"),
        ("precision", "programs/0/precision", "fp8", "programs[0].precision"),
        ("verified", "programs/0/verified", "no", "programs[0].verified"),
        ("carries", "programs/0/feeds/0/carries", "sum", "programs[0].feeds[0].carries"),
        ("program-twice", "programs", small["programs"] * 2, "programs"),
        ("program-unlisted", "programs/0/path", "programs/gpu.bin", "programs/gpu.bin"),
        ("program-part-of-name", "programs/0/path", "programs/cpu", "programs/cpu"),
        ("program-outside", "programs/0/path", "../cpu.bin", "../cpu.bin"),
        ("program-absolute", "programs/0/path", "/etc/hosts", "/etc/hosts"),
        ("program-empty", "programs/0/path", "", "cpu"),
        ("observe-outside", "programs/0/observe_path", "../cpu.bin", "../cpu.bin"),
        ("feed-unknown", "programs/0/feeds/0/tensor", "tail.weight", "tail.weight"),
        ("feed-size", "programs/0/feeds/0/shape", [3, 5], "head.weight"),
        ("key-id", "edit_keys/0/id", wire.SECOND.id, "edit_keys[0]"),
        ("key-base64", "edit_keys/0/public_key", "!", "edit_keys[0]"),
        ("key-padding", "edit_keys/0/public_key", wire.CLOUD.public.rstrip("="), "edit_keys[0]"),
        ("edit-bytes", "max_edit_bytes", 0, "max_edit_bytes"),
        ("observation-bytes", "max_observation_bytes", 0, "max_observation_bytes"),
        ("file-size", "files/base.safetensors/size", -1, "files.base.safetensors"),
        ("file-digest", "files/base.safetensors/sha256", "0" * 63, "files.base.safetensors"),
        ("file-digest-case", "files/base.safetensors/sha256", "A" * 64, "files.base.safetensors"),
    ):  # fmt: skip
        add(name, f"{path}: {str(value)[:40]}", _replaced(small, path, value), invalid, field)
    for name, path in (
        ("parent", "../base.safetensors"), ("inner-parent", "programs/../base.safetensors"),
        ("absolute", "/base.safetensors"), ("dot", "."), ("dot-first", "./base.safetensors"),
        ("inner-dot", "programs/./cpu.bin"), ("two-slashes", "programs//cpu.bin"),
        ("slash-last", "programs/"), ("empty", ""), ("backslash", "programs\\cpu.bin"),
        ("drive", "C:cpu.bin"), ("hidden", ".ssh"), ("dash", "-rf"), ("nul", "cpu\u0000.bin"),
        ("newline", "cpu.bin\n"), ("unicode", "cpu\u00e9.bin"), ("home", "~/cpu.bin"),
        ("manifest", "manifest.json"), ("signature", "manifest.sig"),
    ):  # fmt: skip
        files = {**small["files"], path: sha}
        add(f"path-{name}", f"a file called {path!r}", _replaced(small, "files", files), invalid,
            "file")  # fmt: skip


def _manifests_in_two(add: Callable[..., None], small: dict[str, Any]) -> None:
    """A program in two, whose second half holds the slot in its bytes: 100 of them."""
    (program,), (feed,) = small["programs"], small["programs"][0]["feeds"]
    patch = {"offset": 20, "length": 48, "dtype": "F32"}
    patched = {**feed, "index": None, "patch": patch}
    head = {"path": "programs/head.bin", "method": "forward"}
    files = {**small["files"], head["path"]: {"size": 100, "sha256": "1" * 64}}
    bias = {**patched, "tensor": "head.bias", "shape": [3],
            "patch": {"offset": 68, "length": 12, "dtype": "F32"}}  # fmt: skip
    slot = {**small["slots"][0], "bias": True, "bias_bound": 1.0}

    def with_program(feeds: list[Any], **more: Any) -> dict[str, Any]:
        whole = {**program, "head": head, "feeds": feeds, **more}
        return {**small, "files": files, "programs": [whole]}

    def with_patch(**more: Any) -> list[Any]:
        return [{**patched, "patch": {**patch, **more}}]

    add("good-head", "a program in two, a slot in the bytes of the second",
        with_program([patched]), "ok")  # fmt: skip
    add("good-head-to-the-end", "a patch that ends where the file does",
        with_program(with_patch(offset=52)), "ok")  # fmt: skip
    both = {**with_program([patched, bias]), "slots": [slot]}
    add("good-head-neighbours", "two patches side by side", both, "ok")
    mixed = with_program([patched, {**bias, "index": 2, "patch": None}])
    add("good-head-and-input", "one tensor in the head's bytes, one an input of the first half",
        {**mixed, "slots": [slot]}, "ok")  # fmt: skip
    add("good-head-null", "`head` and `patch` may be null",
        with_program([{**feed, "patch": None}], head=None), "ok")  # fmt: skip
    add("good-slot-feed", "`slot_feed` holds anything",
        with_program([patched], slot_feed={"why": [1, None]}), "ok")  # fmt: skip
    over = [patched, {**bias, "patch": {**bias["patch"], "offset": 67}}]
    bad: tuple[tuple[str, str, dict[str, Any], str], ...] = (
        ("without-patch", "a head without a patch", with_program([feed]), "patches"),
        ("without-head", "a patch without a head", with_program([patched], head=None), "patches"),
        ("unlisted", "a head that is not among the files",
         with_program([patched], head={**head, "path": "programs/other.bin"}), "other.bin"),
        ("folder", "a head that is a folder",
         with_program([patched], head={**head, "path": "programs"}), "programs"),
        ("same-file", "both halves in one file",
         with_program(with_patch(offset=0, length=48), head={**head, "path": program["path"]}),
         "head"),
        ("unknown-field", "an unknown field", with_program([patched], head={**head, "size": 1}),
         "head.size"),
        ("no-method", "no method", with_program([patched], head={"path": head["path"]}),
         "head.method"),
        ("patch-and-index", "a patch and a position", with_program([{**patched, "index": 2}]),
         "head.weight"),
        ("patch-and-input", "a patch and a name", with_program([{**patched, "input": "w"}]),
         "head.weight"),
        ("patch-change", "a patch of the change",
         with_program([{**patched, "carries": "change"}]), "head.weight"),
        ("patch-beyond", "a patch that ends after the file", with_program(with_patch(offset=53)),
         "head.weight"),
        ("patch-negative", "a patch before the file", with_program(with_patch(offset=-1)), "patch"),
        ("patch-short", "fewer bytes than the tensor", with_program(with_patch(length=44)),
         "head.weight"),
        ("patch-long", "more bytes than the tensor", with_program(with_patch(length=49)),
         "head.weight"),
        ("patch-f16", "a dtype that no patch has", with_program(with_patch(dtype="F16")),
         "patch.dtype"),
        ("patch-fraction", "an offset with a fraction", with_program(with_patch(offset=20.0)),
         "patch.offset"),
        ("patch-overlap", "two patches share a byte",
         {**with_program(over), "slots": [slot]}, "67"),
        ("slot-feed-list", "`slot_feed` is a list", with_program([patched], slot_feed=[]),
         "slot_feed"),
    )  # fmt: skip
    for name, about, document, field in bad:
        add(f"head-{name}", about, document, "bundle.manifest_invalid", field)


def _dotted(path: str) -> str:
    """`slots/0/kind` as an error names it: `slots[0].kind`."""
    words = path.split("/")
    return words[0] + "".join(f"[{w}]" if w.isdigit() else f".{w}" for w in words[1:])


def _signatures(bundles: Bundles) -> None:
    """`manifest.sig` of `bundles/complete/`, for readers that pin the publisher's key or none."""
    text = bundles.files["bundles/complete/manifest.json"]
    key, stranger = wire.PUBLISHER, wire.STRANGER
    alone = {"key_id": key.id, "signature": wire.text(key.sign(text))}
    good = {**alone, "public_key": key.public}
    by_stranger = {
        "key_id": stranger.id,
        "signature": wire.text(stranger.sign(text)),
        "public_key": stranger.public,
    }
    unread, unknown = "bundle.bad_signature", "bundle.unknown_key"

    def add(name: str, about: str, document: Any, pinned: str, unpinned: str) -> None:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        path = f"bundles/signatures/{name}.sig"
        bundles.files[path] = data
        case = {"name": name, "about": about, "signature": path}
        bundles.cases["signatures"].append({**case, "pinned": pinned, "unpinned": unpinned})

    def unreadable(name: str, about: str, document: Any) -> None:
        add(name, about, document, unread, unread)

    add("good", "with the key", good, "ok", "ok")
    add("good-alone", "without the key", alone, "ok", unknown)
    add("good-order", "key order and white space mean nothing",
        json.dumps(dict(reversed(good.items())), indent=2).encode(), "ok", "ok")  # fmt: skip
    add("stranger", "whole, by a stranger", by_stranger, unknown, "ok")
    add("stranger-alone", "by a stranger, without the key",
        {k: v for k, v in by_stranger.items() if k != "public_key"}, unknown, unknown)  # fmt: skip
    add("stranger-key", "a stranger's id and key, the publisher's signature",
        {**by_stranger, "signature": good["signature"]}, unknown, unread)  # fmt: skip
    add("stranger-signature", "the publisher's id and key, a stranger's signature",
        {**good, "signature": by_stranger["signature"]}, unread, unread)  # fmt: skip
    add("signature-empty", "no signature", {**good, "signature": ""}, unread, unread)
    add("signature-base64", "no base64", {**good, "signature": "!"}, unread, unread)
    add("signature-base64-by-stranger", "no base64, and an id that is not trusted",
        {**by_stranger, "signature": "!"}, unknown, unread)  # fmt: skip
    loose = good["signature"].rstrip("=")
    if loose != good["signature"]:
        add("signature-padding", "base64 without padding", {**good, "signature": loose},
            unread, unread)  # fmt: skip

    unreadable("other-key", "the key of another id", {**good, "public_key": stranger.public})
    unreadable("other-id", "the publisher's key under another id", {**good, "key_id": stranger.id})
    unreadable("id-upper-case", "the id in capitals", {**good, "key_id": key.id.upper()})
    unreadable("key-empty", "an empty key", {**good, "public_key": ""})
    unreadable("key-null", "null for a key", {**good, "public_key": None})
    unreadable("key-list", "a list for a key", {**good, "public_key": [key.public]})
    unreadable("key-base64", "a key that is no base64", {**good, "public_key": "!"})
    unreadable("key-padding", "a key without padding",
               {**good, "public_key": key.public.rstrip("=")})  # fmt: skip
    der = base64.b64decode(key.public)
    for name, about, other in (
        ("key-cut", "a key that is cut", der[:-1]),
        ("key-longer", "a key with a byte after it", der + b"\0"),
        ("key-compressed", "a key with its point compressed", wire.compressed(der)),
        (
            "key-point-off-curve",
            "a point that is not on the curve",
            der[:-1] + bytes([der[-1] ^ 1]),
        ),
        ("key-zeros", "91 zeros", bytes(91)),
    ):
        key_id = hashlib.sha256(other).hexdigest()[:16]
        document = {**alone, "key_id": key_id, "public_key": wire.text(other)}
        add(name, f"{about}, under its id", document, unknown, unread)
    unreadable("more", "a fourth field", {**good, "note": ""})
    unreadable("old-name", "the key in another field", {**alone, "public-key": key.public})
    for field in ("key_id", "signature"):
        unreadable(f"without-{field}", f"{field} is missing",
                   {k: v for k, v in good.items() if k != field})  # fmt: skip
        unreadable(f"{field}-number", f"{field} is a number", {**good, field: 1})
    text = json.dumps(good).encode()
    for name, about, data in (
        ("empty", "no bytes", b""),
        ("cut", "cut in the middle", text[: len(text) // 2]),
        ("list", "a list", b"[" + text + b"]"),
        ("mark", "a byte order mark", b"\xef\xbb\xbf" + text),
        ("latin", "not UTF-8", text.replace(b'"key_id"', b'"key\xff"')),
        ("twice", "a field twice", text.replace(b"{", b'{"key_id": "", ')),
        ("key-twice", "the key twice", text.replace(b"{", b'{"public_key": "", ')),
        ("after", "text after it", text + b"{}"),
        ("comma", "a trailing comma", text.replace(b"}", b",}")),
    ):
        unreadable(f"json-{name}", about, data)


def _files(bundles: Bundles, complete: dict[str, Any]) -> None:
    """What lies in the folder, against the list in `bundles/complete/manifest.json`."""
    good = complete["files"]
    longer = {**good["golden.safetensors"], "size": good["golden.safetensors"]["size"] + 1}
    other = {**good["base.safetensors"], "sha256": "0" * 64}
    no_golden = {path: file for path, file in good.items() if path != "golden.safetensors"}
    missing, changed = "bundle.file_missing", "bundle.file_changed"
    unlisted, extra = "bundle.file_unlisted", {"notes.txt": other}
    for name, found, verdict in (
        ("good", good, "ok"),
        ("nothing", {}, missing),
        ("one-missing", no_golden, missing),
        ("size", {**good, "golden.safetensors": longer}, changed),
        ("digest", {**good, "base.safetensors": other}, changed),
        ("unlisted", {**good, **extra}, unlisted),
        ("unlisted-in-folder", {**good, "programs/gpu.bin": other}, unlisted),
        ("missing-before-changed", {**no_golden, "base.safetensors": other}, missing),
        ("changed-before-unlisted", {**good, "base.safetensors": other, **extra}, changed),
        ("missing-before-unlisted", {**no_golden, **extra}, missing),
    ):
        bundles.cases["files"].append({"name": name, "found": found, "verdict": verdict})


def _tensors(bundles: Bundles) -> None:
    """Base, prototypes and golden vectors of the bundle `complete`."""
    invalid = "bundle.tensors_invalid"
    base = MIXED.base()
    prototypes: dict[str, NDArray[Any]] = {
        f"{k}.{name}": values
        for k in range(MIXED.prototypes)
        for name, values in MIXED.prototype(k).items()
    }
    prototypes |= {f"assign.{name}": values for name, values in MIXED.rule().items()}
    golden = golden_tensors(MIXED, 1)
    formats = {kind: f"persona.{kind}/1" for kind in ("base", "prototypes", "golden")}

    def add(
        kind: str,
        name: str,
        tensors: Mapping[str, NDArray[Any] | None],
        verdict: str = invalid,
        metadata: dict[str, str] | None = None,
        observation: dict[str, Any] | None = None,
    ) -> None:
        kept = {key: values for key, values in tensors.items() if values is not None}
        path = f"bundles/tensors/{kind}-{name}.safetensors"
        metadata = {"format": formats[kind]} if metadata is None else metadata
        bundles.files[path] = wire.container(kept, metadata)
        case = {"name": f"{kind}-{name}", "kind": kind, "file": path, "verdict": verdict}
        if observation is not None:
            case["observation"] = observation
        bundles.cases["tensors"].append(case)

    nan = np.full((3, 4), np.nan, "<f4")
    add("base", "good", base, "ok")
    add("base", "missing", {**base, "norm.shift": None})
    add("base", "unknown", {**base, "head.1.weight": base["head.0.weight"]})
    add("base", "transposed", {**base, "head.0.weight": base["head.0.weight"].T.copy()})
    add("base", "edit-rank", {**base, "head.2.a": np.zeros((2, 3), "<f4")})
    add("base", "f16", {**base, "norm.scale": base["norm.scale"].astype("<f2")})
    add("base", "nan", {**base, "head.0.weight": nan})
    add("base", "format", base, metadata={"format": "persona.prototypes/1"})
    add("base", "no-metadata", base, metadata={})
    add("base", "more-metadata", base, metadata={"format": formats["base"], "note": ""})

    half = {k: v if k.startswith("assign") else v.astype("<f2") for k, v in prototypes.items()}
    add("prototypes", "good", prototypes, "ok")
    add("prototypes", "good-f16", half, "ok")
    add("prototypes", "missing", {**prototypes, "2.norm.scale": None})
    add("prototypes", "one-more", {**prototypes, "3.norm.scale": np.zeros(4, "<f4")})
    add("prototypes", "leading-zero", {**prototypes, "00.norm.scale": np.zeros(4, "<f4")})
    add("prototypes", "program-rank", {**prototypes, "0.head.2.a": np.zeros((4, 3), "<f4")})
    add("prototypes", "no-rule", {k: v for k, v in prototypes.items() if k[0].isdigit()})
    add("prototypes", "no-bias", {**prototypes, "assign.bias": None})
    add("prototypes", "narrow-rule", {**prototypes, "assign.mean": np.zeros(5, "<f4")})
    weight = prototypes["assign.weight"]
    add("prototypes", "transposed-rule", {**prototypes, "assign.weight": weight.T.copy()})
    add("prototypes", "f16-rule", {**prototypes, "assign.weight": weight.astype("<f2")})
    add("prototypes", "zero-deviation", {**prototypes, "assign.deviation": np.zeros(6, "<f4")})
    add("prototypes", "infinity", {**prototypes, "1.norm.shift": np.full(4, np.inf, "<f2")})
    add("prototypes", "f64", {**prototypes, "1.norm.shift": np.zeros(4, "<f8")})
    limits = {name: v for slot in MIXED.slots for name, v in slot.limits().items()}
    full = {
        f"{k}.{name}": np.full(shape, sign * limits[name], "<f4")
        for k, sign in enumerate((1, -1, 1))
        for name, shape in MIXED.shapes.items()
    }
    add("prototypes", "at-bounds", {**prototypes, **full}, "ok")
    for name, limit in limits.items():
        over = prototypes[f"2.{name}"].copy()
        over.flat[-1] = -np.nextafter(np.float32(limit), np.float32(np.inf))
        suffix = name.replace(".", "-")
        add("prototypes", f"beyond-{suffix}", {**prototypes, f"2.{name}": over})
    half_over = np.full((3, 4), 0.5, "<f2")
    half_over[0, 0] = np.nextafter(np.float16(0.5), np.float16(1))
    add("prototypes", "beyond-f16", {**prototypes, "0.head.0.weight": half_over})

    add("golden", "good", golden, "ok")
    add("golden", "good-two", golden_tensors(MIXED), "ok")
    add("golden", "none", {k: v for k, v in golden.items() if k.startswith("edit.")})
    add("golden", "no-input", {**golden, "input.0.x": None})
    add("golden", "unknown-input", {**golden, "input.0.y": golden["input.0.x"]})
    add("golden", "second-input-alone", {**golden, "input.1.x": golden["input.0.x"]})
    add("golden", "no-prototype", {**golden, "prototype.1.0": None})
    add("golden", "one-more-prototype", {**golden, "prototype.3.0": golden["base.0"]})
    add("golden", "no-edited", {**golden, "edited.0": None})
    add("golden", "no-edit", {**golden, "edit.norm.scale": None})
    add("golden", "edit-program-rank", {**golden, "edit.head.2.a": np.zeros((4, 3), "<f4")})
    add("golden", "float-candidates", {**golden, "input.0.candidates": np.ones((1, 5), "<f4")})
    add("golden", "wide-input", {**golden, "input.0.x": np.ones((1, 5), "<f4")})
    add("golden", "flat-output", {**golden, "base.0": np.ones(5, "<f4")})
    add("golden", "fewer-outputs", {**golden, "edited.0": np.ones((1, 4), "<f4")})
    outputs = {key: np.ones((1, 0), "<f4") for key in golden if key.endswith(".0")}
    none = {**outputs, "input.0.candidates": np.ones((1, 0), "<i8")}
    add("golden", "no-candidates", {**golden, **none})
    add("golden", "nan", {**golden, "base.0": np.full((1, 5), np.nan, "<f4")})
    add("golden", "items-features", {**golden, "features.0": np.ones((1, 3), "<f4")})

    pooled = golden_tensors(MIXED, 1, pooled=True)
    for name, changes in (
        ("no-features", {"features.0": None}),
        ("no-posterior", {"posterior.0": None}),
        ("one-more-features", {"features.1": pooled["features.0"]}),
        ("wide-features", {"features.0": np.ones((1, 4), "<f4")}),
        ("wide-posterior", {"posterior.0": np.ones((1, 3), "<f4")}),
        ("flat-features", {"features.0": np.ones(3, "<f4")}),
        ("two-rows", {"posterior.0": np.ones((2, 2), "<f4")}),
        ("exchanged", {"features.0": pooled["posterior.0"], "posterior.0": pooled["features.0"]}),
        ("f16-features", {"features.0": np.ones((1, 3), "<f2")}),
        ("f64-posterior", {"posterior.0": np.ones((1, 2), "<f8")}),
        ("nan-features", {"features.0": np.full((1, 3), np.nan, "<f4")}),
        ("infinite-posterior", {"posterior.0": np.full((1, 2), np.inf, "<f4")}),
    ):  # fmt: skip
        add("golden", f"pooled-{name}", {**pooled, **changes}, observation=POOLED)
    add("golden", "pooled-good", pooled, "ok", observation=POOLED)
    two = golden_tensors(MIXED, pooled=True)
    add("golden", "pooled-good-two", two, "ok", observation=POOLED)
    add("golden", "pooled-second-no-features", {**two, "features.1": None}, observation=POOLED)
    add("golden", "pooled-as-items", pooled)


def _patches(bundles: Bundles) -> None:
    """Heads before and after their slots were patched; `values` are what is effective."""
    shapes: dict[str, tuple[int, ...]] = {
        name: values.shape for name, values in MIXED.base().items()
    }
    for name, about, gap, backwards in (
        ("side-by-side", "tensors one after the other", 0, False),
        ("apart", "bytes between them that stay", 5, False),
        ("backwards", "the last tensor first", 3, True),
    ):
        values = {n: wire.numbers(f"patched {name} {n}", s) for n, s in shapes.items()}
        head, feeds = bytearray(f"head {name}: ".encode()), []
        for tensor in sorted(shapes, reverse=backwards):
            length = 4 * int(np.prod(shapes[tensor]))
            feeds.append(
                {
                    "tensor": tensor,
                    "index": None,
                    "input": None,
                    "carries": "effective",
                    "shape": list(shapes[tensor]),
                    "patch": {"offset": len(head), "length": length, "dtype": "F32"},
                }
            )
            head += bytes(index * 7 % 256 for index in range(length + gap))
        patched = bytearray(head)
        for feed in feeds:
            at = feed["patch"]["offset"]
            for index, value in enumerate(values[feed["tensor"]].ravel().tolist()):
                struct.pack_into("<f", patched, at + 4 * index, value)
        path = f"bundles/patches/{name}"
        bundles.files[f"{path}.before.bin"] = bytes(head)
        bundles.files[f"{path}.after.bin"] = bytes(patched)
        bundles.files[f"{path}.safetensors"] = wire.container(values, {"format": "patch"})
        bundles.cases["patches"].append(
            {
                "name": name,
                "about": about,
                "before": f"{path}.before.bin",
                "after": f"{path}.after.bin",
                "values": f"{path}.safetensors",
                "feeds": feeds,
            }
        )
