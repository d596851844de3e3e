"""One run becomes one bundle: programs, base, prototypes, golden vectors, signed manifest.

Every program is run before it is shipped: against eager PyTorch for the base, each prototype and
edits within and at the bounds, and once with each slot tensor changed alone, so that no slot is
without effect. Where nothing here executes a program, the graph that went into it is run.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from persona.backbones import Backbone, DynamicDim
from persona.backbones.base import InputSpec
from persona.durable import staged_folder
from persona.formats.bundle_tensors import (
    Golden,
    Prototypes,
    encode_base,
    encode_golden,
    encode_prototypes,
)
from persona.formats.edit import format_time, quantise
from persona.formats.manifest import (
    MANIFEST,
    SIGNATURE,
    Dimension,
    EditKey,
    File,
    Manifest,
    Port,
    Program,
    digest,
    encode_manifest,
)
from persona.formats.observation import PooledSpec
from persona.formats.schema import encode
from persona.formats.slots import Array, SlotSpec, tensor_names, zero_edit
from persona.method.slots import base_tensors
from persona.runs import Run, versions
from persona.signing import encode_signature, to_text
from persona_export.coreml_package import Package, activation_bytes
from persona_export.parity import check_against_eager, check_program, eager
from persona_export.targets import ExportError, Precision, SlotFeed, Source, Target, targets

_GOLDEN_SIZES = (20, 1, 100, 7)
"""Golden inputs are as many; where the caller chooses a size, such as of candidates, it is this."""

_PROBE_CANDIDATES = 64
"""Random inputs that the probe's is chosen from."""


@dataclass(frozen=True)
class Wanted:
    """A program to export. `required`: whether failing to write it fails the whole export."""

    target: str
    precision: Precision | None = None
    required: bool = True


@dataclass(frozen=True)
class Written:
    """One program of the export report.

    files: path -> bytes. inside, outside: operators in and out of delegates, over all methods; all
    of a Core ML package's are inside. peak_bytes: memory that the activations of the largest method
    need. For ExecuTorch the arena that the program plans, without what delegates take for
    themselves; for a Core ML package an estimate from shapes.
    """

    verified: str
    slot_feed: str
    files: dict[str, int]
    inside: int
    outside: int
    peak_bytes: int
    seconds: float
    largest_difference: float


@dataclass(frozen=True)
class Exported:
    """What an export made: where, under which name, and what could not be written and why.

    report, left_out: by `TARGET PRECISION`.
    """

    path: Path
    digest: str
    manifest: Manifest
    report: dict[str, Written]
    left_out: dict[str, str]


def export_bundle(
    run: Run,
    wanted: tuple[Wanted, ...],
    out: Path,
    step: Callable[[str], object],
    slot_feed: SlotFeed = "auto",
) -> Exported:
    """Write the bundle folder `out`, whole or not at all.

    step: called with what is being done. Raises ExportError when a required program fails, or all.
    """
    backbone, slots = run.backbone, run.record.slots
    golden = _golden(run)
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    prototypes = _prototypes(run)
    pooled = isinstance(run.record.observation, PooledSpec)
    source = Source(backbone, slots, pooled, slot_feed)
    ports = tuple(_port(spec) for spec in backbone.input_specs())
    output = _output_port(backbone, golden)
    programs: list[Program] = []
    report: dict[str, Written] = {}
    left_out: dict[str, str] = {}
    with staged_folder(out) as staging:
        for want in wanted:
            target = targets[want.target]()
            precision = want.precision or target.precisions[0]
            name = f"{want.target} {precision}"
            step(f"exporting {want.target}" + (f" {precision}" if want.precision else ""))
            start = time.perf_counter()
            try:
                with _no_remains(staging):
                    program = _write(target, want.target, source, precision, staging)
                    parity = check_program(
                        target, staging, program, slots, base, prototypes.changes, golden
                    )
                    random = check_against_eager(
                        target, staging, program, backbone, slots, prototypes.changes, golden.inputs
                    )
            except ExportError as error:
                if want.required:
                    raise
                left_out[name] = str(error)
            else:
                programs.append(program)
                worst = max(parity.worst, random)
                seconds = time.perf_counter() - start
                report[name] = _report(program, staging, seconds, worst)
        if not programs:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise ExportError(f"no program could be written. {reasons}")
        step("writing the bundle")
        (staging / "base.safetensors").write_bytes(encode_base(slots, base))
        (staging / "prototypes.safetensors").write_bytes(encode_prototypes(slots, prototypes))
        (staging / "golden.safetensors").write_bytes(
            encode_golden(slots, ports, output, run.record.observation, golden)
        )
        manifest = _manifest(run, staging, ports, output, tuple(programs))
        data = encode_manifest(manifest)
        key = run.bundle_key()
        (staging / MANIFEST).write_bytes(data)
        (staging / SIGNATURE).write_bytes(encode_signature(key.sign(data), key.public))
    return Exported(out, digest(data), manifest, report, left_out)


def _write(
    target: Target, name: str, source: Source, precision: Precision, folder: Path
) -> Program:
    """One program. Whatever a converter cannot do is an ExportError."""
    if precision not in target.precisions:
        why = f": {target.lacks[precision]}" if precision in target.lacks else ""
        raise ExportError(f"{name} has no {precision}; it has {', '.join(target.precisions)}{why}")
    if source.slot_feed != "auto" and source.slot_feed not in target.slot_feeds:
        raise ExportError(
            f"{name} cannot feed slots as {source.slot_feed!r}; it can as "
            f"{', '.join(target.slot_feeds)}"
        )
    try:
        return target.export(source, precision, folder)
    except ExportError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{name} {precision} cannot take this model: {type(error).__name__}: {reason}"
        ) from error


@contextmanager
def _no_remains(folder: Path) -> Iterator[None]:
    """What a failed attempt wrote into the folder is removed."""
    before = set(folder.rglob("*"))
    try:
        yield
    except ExportError:
        for path in sorted(set(folder.rglob("*")) - before, reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        raise


def _report(program: Program, folder: Path, seconds: float, worst: float) -> Written:
    places = {folder / program.path, folder / (program.observe_path or program.path)}
    if program.head is not None:
        places.add(folder / program.head.path)
    files = {f for p in places for f in ((p,) if p.is_file() else p.rglob("*")) if f.is_file()}
    packages = [Package.open(place) for place in places if place.suffix == ".mlpackage"]
    operations = [o for package in packages for o in package.program.operations]
    methods = [m for m in program.delegation.values() if isinstance(m, dict) and "inside" in m]
    peaks = [m["planned_bytes"] for m in methods] + [activation_bytes(p) for p in packages]
    return Written(
        verified=program.verified,
        slot_feed=str(program.slot_feed.get("chosen", "inputs")),
        files={f.relative_to(folder).as_posix(): f.stat().st_size for f in sorted(files)},
        inside=sum(sum(m["inside"].values()) for m in methods)
        + sum(not operation.is_constant for operation in operations),
        outside=sum(sum(m["outside"].values()) for m in methods),
        peak_bytes=max(peaks, default=0),
        seconds=round(seconds, 1),
        largest_difference=worst,
    )


def _manifest(
    run: Run, folder: Path, ports: tuple[Port, ...], output: Port, programs: tuple[Program, ...]
) -> Manifest:
    slots, observation = run.record.slots, run.record.observation
    values = sum(int(np.prod(shape)) for shape in tensor_names(slots).values())
    longest = observation.width if isinstance(observation, PooledSpec) else observation.max_count
    edit_key = run.edit_key()
    return Manifest(
        format="persona.bundle/1",
        model=run.model,
        task=run.backbone.task,
        created_at=format_time(datetime.now(UTC)),
        inputs=ports,
        outputs=(output,),
        slots=slots,
        observation=observation,
        prototype_count=run.bank.count,
        base="base.safetensors",
        prototypes="prototypes.safetensors",
        golden="golden.safetensors",
        programs=programs,
        edit_keys=(EditKey(edit_key.id, to_text(edit_key.public)),),
        max_edit_bytes=4 * values + 65_536,
        max_observation_bytes=32 * longest + 4_096,
        files=_files(folder),
        made_by={
            "config": encode(run.record.config),
            "data_fingerprint": run.record.data_fingerprint,
            "trained_with": run.record.versions,
            "exported_with": versions(),
            "curves": encode(run.record.curves),
        },
    )


def _files(folder: Path) -> dict[str, File]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found[path.relative_to(folder).as_posix()] = File(
                len(data), hashlib.sha256(data).hexdigest()
            )
    return found


def _port(spec: InputSpec) -> Port:
    free = tuple(Dimension(d.name, d.min, d.max) for d in spec.shape if isinstance(d, DynamicDim))
    shape = tuple(d if isinstance(d, int) else -1 for d in spec.shape)
    return Port(spec.name, spec.dtype, shape, free)


def _output_port(backbone: Backbone, golden: Golden) -> Port:
    """Logits have one size; a ranking has a score for each candidate, as many as come in."""
    free = [d for spec in backbone.input_specs() for d in spec.shape if isinstance(d, DynamicDim)]
    if not free:
        return Port("output", "float32", golden.base[0].shape)
    return Port("output", "float32", (1, -1), (Dimension(free[0].name, free[0].min, free[0].max),))


def _prototypes(run: Run) -> Prototypes:
    edits = {name: value.detach().numpy() for name, value in run.bank.edits().items()}
    return Prototypes(
        changes=tuple({n: v[k] for n, v in edits.items()} for k in range(run.bank.count)),
        **{name: value.numpy() for name, value in vars(run.rule).items()},
    )


def _golden(run: Run) -> Golden:
    """Random inputs, and what eager PyTorch makes of them: nobody's data goes into an app."""
    backbone, slots = run.backbone, run.record.slots
    specs = backbone.input_specs()
    inputs = _golden_inputs(backbone, slots)
    edit = example_edit(slots)
    nothing = zero_edit(slots)

    def outputs(change: Mapping[str, Array]) -> tuple[Array, ...]:
        return tuple(eager(backbone, slots, (change, nothing), x) for x in inputs)

    observed: list[tuple[torch.Tensor, torch.Tensor]] = []
    if isinstance(run.record.observation, PooledSpec):
        with torch.inference_mode():
            observed = [backbone.features(*x) for x in inputs]
    changes = _prototypes(run).changes
    return Golden(
        inputs=tuple(
            {spec.name: t.numpy() for spec, t in zip(specs, x, strict=True)} for x in inputs
        ),
        base=outputs(nothing),
        prototypes=tuple(outputs(change) for change in changes),
        edit=edit,
        edited=outputs(edit),
        features=tuple(features.numpy() for features, _ in observed),
        posterior=tuple(posterior.numpy() for _, posterior in observed),
    )


def _golden_inputs(
    backbone: Backbone, slots: tuple[SlotSpec, ...]
) -> list[tuple[torch.Tensor, ...]]:
    """Random inputs; the first, which probes run on, is the one through which most slot values
    show: behind a unit that is 0 for an input, a wrong value would go unseen.
    """

    def showing(seed: int) -> int:
        return _slot_values_that_show(backbone, slots, backbone.example_inputs(seed, size))

    size, *others = _GOLDEN_SIZES
    best = max(range(_PROBE_CANDIDATES), key=showing)
    rest = [backbone.example_inputs(_PROBE_CANDIDATES + i, n) for i, n in enumerate(others)]
    return [backbone.example_inputs(best, size), *rest]


def _slot_values_that_show(
    backbone: Backbone, slots: tuple[SlotSpec, ...], inputs: tuple[torch.Tensor, ...]
) -> int:
    """How many of the slots' weights the output depends on, at the base, for one input."""
    names = [f"{slot.name}.weight" for slot in slots]
    weights = {n: backbone.get_parameter(n).detach().clone().requires_grad_() for n in names}
    output = functional_call(backbone, weights, inputs)
    mixed = (output * torch.linspace(1.0, 2.0, output.numel()).reshape(output.shape)).sum()
    return sum(int(g.count_nonzero()) for g in torch.autograd.grad(mixed, list(weights.values())))


def example_edit(slots: tuple[SlotSpec, ...], seed: int = 0) -> dict[str, Array]:
    """A random edit within the bounds, as its file would hold it (F16 values)."""
    rng = np.random.default_rng(seed)
    limits = {f"{s.name}.{x}": limit for s in slots for x, limit in s.limits().items()}
    values: dict[str, Any] = {
        name: rng.uniform(-0.5, 0.5, shape).astype(np.float32) * np.float32(limits[name])
        for name, shape in tensor_names(slots).items()
    }
    return {n: v.astype(np.float32) for n, v in quantise(slots, values).items()}
