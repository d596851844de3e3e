"""The cases of `persona.observation/1`: both forms, right and wrong, and the pooling arithmetic."""

import json
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import wire

BUNDLE = wire.digest("persona conformance: observations")
SPECS: dict[str, dict[str, Any]] = {
    "pooled": {
        "kind": "pooled",
        "features": 3,
        "classes": 2,
        "min_count": 2,
        "max_count": 40,
        "training_mass": [0.25, 0.75],
    },
    "items": {"kind": "items", "vocabulary": 9, "min_count": 1, "max_count": 4},
}
FIELDS = ("mean", "deviation", "class_mass", "class_prior", "class_mean")


class Observations:
    """The cases so far, and the files that they read."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}

    def add(
        self,
        name: str,
        about: str,
        spec: str,
        form: str,
        data: bytes,
        verdict: str,
        vector: NDArray[Any] | None = None,
    ) -> None:
        """Add a case; a good one has its vector."""
        ending = "json" if form == "json" else "safetensors"
        path = f"observations/{name}.{ending}"
        case: dict[str, Any] = {
            "name": name, "about": about, "spec": spec, "form": form, "file": path,
            "verdict": verdict,
        }  # fmt: skip
        self.files[path] = data
        if vector is not None:
            case["bundle"] = BUNDLE
            case["vector"] = f"observations/{name}.vector.safetensors"
            self.files[case["vector"]] = wire.container({"vector": vector}, None)
        self.cases.append(case)


def observation_cases() -> Observations:
    """All cases of observations."""
    cases = Observations()
    _good(cases)
    _bad_json(cases)
    _bad_safetensors(cases)
    _pooling(cases)
    return cases


def _statistics() -> dict[str, NDArray[np.float32]]:
    shapes = {"mean": (3,), "deviation": (3,), "class_mass": (2,), "class_prior": (2,)}
    return {
        n: wire.numbers(f"observed {n}", s) for n, s in (*shapes.items(), ("class_mean", (2, 3)))
    }


def _pooled_json(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "format": "persona.observation/1", "bundle": BUNDLE, "kind": "pooled", "count": 20
    }  # fmt: skip
    document |= {name: values.tolist() for name, values in _statistics().items()}
    return {k: v for k, v in {**document, **changes}.items() if v is not None}


def _items_json(**changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "format": "persona.observation/1", "bundle": BUNDLE, "kind": "items", "items": [3, 1, 3, 9]
    }  # fmt: skip
    return {k: v for k, v in {**document, **changes}.items() if v is not None}


def _metadata(kind: str, /, **changes: Any) -> dict[str, Any]:
    metadata = {"format": "persona.observation/1", "bundle": BUNDLE, "kind": kind}
    if kind == "pooled":
        metadata["count"] = "20"
    return {k: v for k, v in {**metadata, **changes}.items() if v is not None}


def _vector(statistics: dict[str, NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate([statistics[name].ravel() for name in FIELDS])


def _good(cases: Observations) -> None:
    statistics = _statistics()
    vector = _vector(statistics)

    def text(value: Any, **options: Any) -> bytes:
        return json.dumps(value, **options).encode()

    cases.add(
        "pooled-json",
        "statistics, for people",
        "pooled",
        "json",
        text(_pooled_json()),
        "ok",
        vector,
    )
    cases.add("pooled-safetensors", "the same, for phones", "pooled", "safetensors",
              wire.container(statistics, _metadata("pooled")), "ok", vector)  # fmt: skip
    cases.add("pooled-json-indented", "white space and key order mean nothing", "pooled", "json",
              text(_pooled_json(), indent=2, sort_keys=True), "ok", vector)  # fmt: skip
    backwards = {name: statistics[name] for name in reversed(FIELDS)}
    cases.add("pooled-safetensors-order", "nor does the order of tensors", "pooled", "safetensors",
              wire.container(backwards, _metadata("pooled")), "ok", vector)  # fmt: skip
    for count in (2, 40):
        cases.add(f"pooled-json-count-{count}", "a limit itself is allowed", "pooled", "json",
                  text(_pooled_json(count=count)), "ok", vector)  # fmt: skip
    spelled = text(_pooled_json()).decode()
    first = [json.dumps(x) for x in statistics["mean"].tolist()]
    spelled = spelled.replace(
        f'"mean": [{first[0]}, {first[1]}, {first[2]}]',
        '"mean": [1.00000017881393432617187499, 2e-3, 123456789012345678901234567890]',
    )
    rounded = {
        **statistics,
        "mean": np.array([1.000000178813934326171875, 0.002, 1.2345678901234568e29]).astype("<f4"),
    }
    cases.add("pooled-json-rounding", "a number is read as binary64, then rounded to binary32",
              "pooled", "json", spelled.encode(), "ok", _vector(rounded))  # fmt: skip
    whole = {**statistics, "class_prior": np.array([0, 1], "<f4")}
    cases.add("pooled-json-whole", "a number may lack a fraction", "pooled", "json",
              text(_pooled_json(class_prior=[0, 1])), "ok", _vector(whole))  # fmt: skip
    tiny = {**statistics, "class_prior": np.array([0.0, 2.0**-149], "<f4")}
    cases.add("pooled-json-tiny", "numbers below binary32 are 0, subnormal ones are kept", "pooled",
              "json", text(_pooled_json(class_prior=[1e-300, 2.0**-149])), "ok",
              _vector(tiny))  # fmt: skip

    for name, items in (("all", [3, 1, 3, 9]), ("one", [9]), ("same", [1, 1, 1])):
        shares = np.zeros(10, "<f4")
        for item in items:
            shares[item] += 1
        shares /= np.float32(len(items))
        cases.add(f"items-{name}-json", f"items {items}", "items", "json",
                  text(_items_json(items=items)), "ok", shares)  # fmt: skip
        cases.add(f"items-{name}-safetensors", f"items {items}", "items", "safetensors",
                  wire.container({"items": np.array(items, "<i8")}, _metadata("items")), "ok",
                  shares)  # fmt: skip


def _bad_json(cases: Observations) -> None:
    invalid, empty = "observation.invalid", "observation.empty"
    long, width = "observation.too_long", "observation.width"
    not_finite = "observation.not_finite"
    good = json.dumps(_pooled_json())
    for name, about, text in (
        ("nothing", "no bytes", b""),
        ("not-utf8", "Latin-1", good.replace("pooled", "p\u00f6led").encode("latin-1")),
        ("cut", "cut in the middle", good[: len(good) // 2].encode()),
        ("array", "a list", b"[]"),
        ("null", "null", b"null"),
        ("mark", "a byte order mark", b"\xef\xbb\xbf" + good.encode()),
        ("twice", "a key twice", good.replace('"count"', '"count": 3, "count"').encode()),
        ("nan", "NaN", good.replace("20", "NaN", 1).encode()),
        ("infinity", "Infinity", good.replace('"mean": [', '"mean": [Infinity, ').encode()),
        ("1e400", "beyond binary64", good.replace('"mean": [', '"mean": [1e400, ').encode()),
        ("minus-zero-count", "-0 is no whole number",
         good.replace('"count": 20', '"count": -0').encode()),
        ("fraction-count", "nor is 20.0", good.replace('"count": 20', '"count": 20.0').encode()),
        ("exponent-count", "nor is 2e1", good.replace('"count": 20', '"count": 2e1').encode()),
        ("huge-count", "nor one above 2^53 - 1",
         good.replace('"count": 20', f'"count": {2**53}').encode()),
        ("deep", "nested deeply", good.replace('"count": 20', '"count": ' + "[" * 9000).encode()),
    ):  # fmt: skip
        cases.add(f"bad-json-{name}", about, "pooled", "json", text, invalid)
    row = [0.5, 0.25, 0.125]
    ragged = [row, row[:2]]
    for name, spec, document, verdict in (
        ("format", "pooled", _pooled_json(format="persona.observation/2"), invalid),
        ("no-format", "pooled", _pooled_json(format=None), invalid),
        ("no-bundle", "pooled", _pooled_json(bundle=None), invalid),
        ("no-kind", "pooled", _pooled_json(kind=None), invalid),
        ("unknown-kind", "pooled", _pooled_json(kind="raw"), invalid),
        ("kind-list", "pooled", _pooled_json(kind=[]), invalid),
        ("unknown-field", "pooled", _pooled_json(samples=[1]), invalid),
        ("no-mean", "pooled", _pooled_json(mean=None), invalid),
        ("mean-number", "pooled", _pooled_json(mean=1.0), invalid),
        ("mean-of-text", "pooled", _pooled_json(mean=["1", "2", "3"]), invalid),
        ("mean-of-true", "pooled", _pooled_json(mean=[True, 2, 3]), invalid),
        ("mean-of-lists", "pooled", _pooled_json(mean=[row]), invalid),
        ("count-text", "pooled", _pooled_json(count="20"), invalid),
        ("flat-class-mean", "pooled", _pooled_json(class_mean=row * 2), invalid),
        ("items-for-pooled", "pooled", _items_json(), invalid),
        ("pooled-for-items", "items", _pooled_json(), invalid),
        ("items-text", "items", _items_json(items="3139"), invalid),
        ("item-text", "items", _items_json(items=["3"]), invalid),
        ("item-fraction", "items", _items_json(items=[3.0]), invalid),
        ("item-zero", "items", _items_json(items=[0, 3]), invalid),
        ("item-negative", "items", _items_json(items=[3, -1]), invalid),
        ("item-beyond", "items", _items_json(items=[10]), invalid),
        ("item-huge", "items", _items_json(items=[2**63]), invalid),
        ("no-items", "items", _items_json(items=[]), empty),
        ("five-items", "items", _items_json(items=[1] * 5), long),
        ("count-1", "pooled", _pooled_json(count=1), empty),
        ("count-0", "pooled", _pooled_json(count=0), empty),
        ("count-negative", "pooled", _pooled_json(count=-3), empty),
        ("count-41", "pooled", _pooled_json(count=41), long),
        ("mean-longer", "pooled", _pooled_json(mean=[0.5] * 4), width),
        ("mean-empty", "pooled", _pooled_json(mean=[]), width),
        ("mass-shorter", "pooled", _pooled_json(class_mass=[1.0]), width),
        ("one-class-mean", "pooled", _pooled_json(class_mean=[row]), width),
        ("no-class-mean", "pooled", _pooled_json(class_mean=[]), width),
        ("ragged-class-mean", "pooled", _pooled_json(class_mean=ragged), width),
        ("transposed-class-mean", "pooled", _pooled_json(class_mean=[[1.0, 2.0]] * 3), width),
        ("beyond-binary32", "pooled", _pooled_json(deviation=[1e39, 0, 0]), not_finite),
        # Two faults: the earlier rule gives the code.
        ("order-types-before-rows", "pooled", _pooled_json(class_mean=[row, ["1"]]), invalid),
        ("order-rows-before-format", "pooled", _pooled_json(class_mean=ragged, format="x"), width),
        ("order-rows-before-kind", "items", _pooled_json(class_mean=ragged), width),
        ("order-rows-before-count", "pooled", _pooled_json(class_mean=ragged, count=1), width),
        ("order-count-before-width", "pooled", _pooled_json(count=1, mean=[]), empty),
        ("order-format-before-count", "pooled", _pooled_json(count=1, format="x"), invalid),
        ("order-items-count-before-range", "items", _items_json(items=[0] * 5), long),
        ("order-width-before-finite", "pooled", _pooled_json(mean=[1e39], deviation=[1e39]), width),
        ("order-field-by-field", "pooled", _pooled_json(mean=[1e39, 0, 0], deviation=[]),
         not_finite),
    ):  # fmt: skip
        about = f"wrong: {name.replace('-', ' ')}"
        text = json.dumps(document).encode()
        cases.add(f"bad-json-{name}", about, spec, "json", text, verdict)


def _bad_safetensors(cases: Observations) -> None:
    invalid, width = "observation.invalid", "observation.width"
    empty, long = "observation.empty", "observation.too_long"
    statistics, items = _statistics(), {"items": np.array([3, 1], "<i8")}
    pooled = _metadata("pooled")
    file, not_finite = wire.container, "observation.not_finite"
    good = file(statistics, pooled)

    def nan(name: str, value: float) -> dict[str, NDArray[Any]]:
        values = statistics[name].copy()
        values.reshape(-1)[0] = value
        return {**statistics, name: values}

    cut = good[:-1]
    for name, spec, data, verdict in (
        ("cut", "pooled", cut, "container.out_of_bounds"),
        ("nothing", "pooled", b"", "container.truncated"),
        ("trailing", "pooled", good + b"\0", "container.trailing_bytes"),
        ("format", "pooled", file(statistics, {**pooled, "format": "x"}), invalid),
        ("no-metadata", "pooled", file(statistics, None), invalid),
        ("no-bundle", "pooled", file(statistics, _metadata("pooled", bundle=None)), invalid),
        ("no-kind", "pooled", file(statistics, _metadata("pooled", kind=None)), invalid),
        ("no-count", "pooled", file(statistics, _metadata("pooled", count=None)), invalid),
        ("more-metadata", "pooled", file(statistics, {**pooled, "note": ""}), invalid),
        ("unknown-kind", "pooled", file(statistics, {**pooled, "kind": "raw"}), invalid),
        ("unknown-kind-empty", "pooled", file({}, {**pooled, "kind": "raw"}), invalid),
        ("no-tensors", "pooled", file({}, pooled), invalid),
        ("items-with-count", "items", file(items, {**pooled, "kind": "items"}), invalid),
        ("count-leading-zero", "pooled", file(statistics, {**pooled, "count": "020"}), invalid),
        ("count-text", "pooled", file(statistics, {**pooled, "count": "many"}), invalid),
        ("count-digits", "pooled", file(statistics, {**pooled, "count": "\u0662"}), invalid),
        ("count-1", "pooled", file(statistics, {**pooled, "count": "1"}), empty),
        ("count-41", "pooled", file(statistics, {**pooled, "count": "41"}), long),
        ("more-tensors", "pooled", file({**statistics, **items}, pooled), invalid),
        ("f16", "pooled", file({**statistics, "mean": np.zeros(3, "<f2")}, pooled), invalid),
        ("wider", "pooled", file({**statistics, "mean": np.zeros(4, "<f4")}, pooled), width),
        ("transposed", "pooled",
         file({**statistics, "class_mean": np.zeros((3, 2), "<f4")}, pooled), width),
        ("nan", "pooled", file(nan("class_mean", math.nan), pooled), not_finite),
        ("infinity", "pooled", file(nan("mean", math.inf), pooled), not_finite),
        ("items-i32", "items",
         file({"items": np.array([3, 1], "<i4")}, _metadata("items")), invalid),
        ("items-matrix", "items",
         file({"items": np.ones((2, 2), "<i8")}, _metadata("items")), invalid),
        ("items-none", "items",
         file({"items": np.zeros(0, "<i8")}, _metadata("items")), empty),
        ("items-five", "items",
         file({"items": np.ones(5, "<i8")}, _metadata("items")), long),
        ("items-smallest", "items",
         file({"items": np.array([-(2**63)], "<i8")}, _metadata("items")), invalid),
        ("items-for-pooled", "pooled", file(items, _metadata("items")), invalid),
    ):  # fmt: skip
        about = f"wrong: {name.replace('-', ' ')}"
        cases.add(f"bad-safetensors-{name}", about, spec, "safetensors", data, verdict)


def _pooling(cases: Observations) -> None:
    """Windows of features and posteriors, with the statistics computed one number at a time."""
    for name, count in (("two", 2), ("twenty", 20), ("forty", 40)):
        features = wire.numbers(f"pool {name}", (count, 3), 5.0) + np.float32(100)
        sharp = np.abs(wire.numbers(f"posterior {name}", (count, 2))) ** 4 + np.float32(1e-6)
        posterior = (sharp / sharp.sum(axis=1, keepdims=True)).astype("<f4")
        _window(cases, name, features, posterior)
    near = wire.numbers("posterior slow", (30, 1), 0.03125) + np.float32(0.25390625)
    slow = np.hstack([near, np.float32(1) - near])
    _window(cases, "slow", wire.numbers("pool slow", (30, 3)), slow)
    one_class = np.tile(np.array([1.0, 0.0], "<f4"), (10, 1))
    _window(cases, "one-class", wire.numbers("pool one", (10, 3)), one_class)
    _window(cases, "constant", np.full((7, 3), 0.1, "<f4"), np.full((7, 2), 0.5, "<f4"))
    wrong = {
        "too-few": ((1, 3), (1, 2), "observation.empty"),
        "none": ((0, 3), (0, 2), "observation.empty"),
        "too-many": ((41, 3), (41, 2), "observation.too_long"),
        "wide-features": ((5, 4), (5, 2), "observation.width"),
        "narrow-posterior": ((5, 3), (5, 1), "observation.width"),
        "other-count": ((5, 3), (4, 2), "observation.width"),
    }
    for name, (features_shape, posterior_shape, verdict) in wrong.items():
        tensors = {
            "features": np.full(features_shape, 0.5, "<f4"),
            "posterior": np.full(posterior_shape, 0.5, "<f4"),
        }
        data = wire.container(tensors, None)
        cases.add(f"pool-{name}", name, "pooled", "window", data, verdict)
    shapes = (("features", 3), ("posterior", 2))
    for case, tensor, value, verdict in (
        ("nan-feature", "features", math.nan, "observation.not_finite"),
        ("infinite-posterior", "posterior", math.inf, "observation.not_finite"),
        ("negative-posterior", "posterior", -0.25, "observation.invalid"),
    ):
        tensors = {name: np.full((5, width), 0.5, "<f4") for name, width in shapes}
        tensors[tensor][3, 1] = value
        data = wire.container(tensors, None)
        cases.add(f"pool-{case}", case, "pooled", "window", data, verdict)
    tensors = {"features": np.ones((5, 3), "<f4"), "posterior": np.ones((5, 2), "<f4")}
    tensors["posterior"][2] = 0
    data = wire.container(tensors, None)
    cases.add(
        "pool-zero-posterior",
        "a sample of no class",
        "pooled",
        "window",
        data,
        "observation.invalid",
    )


def _window(
    cases: Observations, name: str, features: NDArray[Any], posterior: NDArray[Any]
) -> None:
    x, p = features.tolist(), posterior.tolist()
    n, classes = len(x), range(len(p[0]))
    columns = list(zip(*x, strict=True))
    mean = [math.fsum(column) / n for column in columns]
    deviation = [
        math.sqrt(math.fsum((v - m) ** 2 for v in column) / n)
        for column, m in zip(columns, mean, strict=True)
    ]
    total = [math.fsum(row[c] for row in p) for c in classes]
    class_mean = [
        [math.fsum(p[i][c] * column[i] for i in range(n)) / (total[c] + 1e-6) for column in columns]
        for c in classes
    ]
    trained = SPECS["pooled"]["training_mass"]
    prior = list(trained)
    for _ in range(50):
        sums = [0.0 for _ in classes]
        for row in p:
            weighted = [row[c] * (prior[c] / trained[c]) for c in classes]
            for c in classes:
                sums[c] += weighted[c] / math.fsum(weighted)
        prior = [max(s / n, 1e-4) for s in sums]
        prior = [value / math.fsum(prior) for value in prior]
    statistics = {
        "mean": mean,
        "deviation": deviation,
        "class_mass": [t / n for t in total],
        "class_prior": prior,
        "class_mean": class_mean,
    }
    vector = _vector({k: np.array(v, np.float64).astype("<f4") for k, v in statistics.items()})
    data = wire.container({"features": features, "posterior": posterior}, None)
    cases.add(f"pool-{name}", f"a window of {n} samples", "pooled", "window", data, "ok", vector)
