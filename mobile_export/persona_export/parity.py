"""Proof that a program does what eager PyTorch does, slot by slot.

On the golden vectors, which a bundle carries; and, while the model is at hand, on random inputs of
every size, for the base, each prototype and edits at the bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from persona.backbones import Backbone, DynamicDim
from persona.bundles import Bundle
from persona.formats.bundle_tensors import Golden
from persona.formats.manifest import Program
from persona.formats.slots import Array, SlotSpec, effective, sum_changes, zero_edit
from persona.method.slots import base_tensors, compose, edited_forward
from persona_export.runner import Machine, RunnerError, run_bundle
from persona_export.runner.build import build
from persona_export.targets import Executor, ExportError, NotRunnableError, Target, targets

_COARSE = 3
"""Differences up to so many tolerances are what rounding does; larger ones are a fault."""

Changes = tuple[Mapping[str, Array], Mapping[str, Array]]
"""A prototype, and an edit on top of it."""


@dataclass(frozen=True)
class Parity:
    """Largest differences from the golden outputs, relative to max(1, largest magnitude).

    observed: of features and posterior; 0 where there is no observe program.
    """

    base: float
    prototypes: float
    edited: float
    observed: float
    tolerance: float

    @property
    def worst(self) -> float:
        """The largest of the differences."""
        return max(self.base, self.prototypes, self.edited, self.observed)


def slot_values(
    program: Program,
    slots: tuple[SlotSpec, ...],
    base: Mapping[str, Array],
    prototype: Mapping[str, Array],
    edit: Mapping[str, Array],
) -> dict[str, Array]:
    """What a program's slots take: base + prototype + edit, or the change alone."""
    if program.feeds[0].carries == "effective":
        return effective(slots, base, prototype, edit)
    return sum_changes(slots, prototype, edit)


def difference(expected: Array, output: Array) -> float:
    """Largest difference relative to max(1, largest magnitude); infinite where shapes differ."""
    if expected.shape != output.shape:
        return float("inf")
    scale = max(1.0, float(np.abs(expected).max()))
    return float(np.abs(expected - output).max()) / scale


def check_program(
    target: Target,
    bundle: Path,
    program: Program,
    slots: tuple[SlotSpec, ...],
    base: Mapping[str, Array],
    prototypes: Sequence[Mapping[str, Array]],
    golden: Golden,
) -> Parity:
    """Run the programs on every golden input. Raises ExportError at the first difference."""
    run = target.executor(bundle, program)
    nothing = zero_edit(slots)

    def worst(
        expected: Sequence[Array], prototype: Mapping[str, Array], edit: Mapping[str, Array]
    ) -> float:
        values = slot_values(program, slots, base, prototype, edit)
        outputs = [run(inputs, values) for inputs in golden.inputs]
        return max(difference(e, o) for e, o in zip(expected, outputs, strict=True))

    parity = Parity(
        base=worst(golden.base, nothing, nothing),
        prototypes=max(
            (worst(e, p, nothing) for e, p in zip(golden.prototypes, prototypes, strict=True)),
            default=0.0,
        ),
        edited=worst(golden.edited, nothing, golden.edit),
        observed=_observed(target, bundle, program, golden),
        tolerance=program.tolerance,
    )
    for what in ("base", "prototypes", "edited", "observed"):
        _require(program, what, getattr(parity, what))
    _check_effects(run, program, slots, base, golden)
    return parity


def _require(program: Program, what: str, found: float) -> None:
    if not found <= program.tolerance:
        coarse = program.precision != "fp32" and found < _COARSE * program.tolerance
        advice = (
            f"{program.precision} is too coarse for this model by a little: try --precision fp32"
            if coarse
            else "Does the model's forward call each slot's layer as a module?"
        )
        raise ExportError(
            f"{program.target} {program.precision} differs from PyTorch by {found:.2g} "
            f"({what}); {program.tolerance:g} is allowed. {advice}"
        )


def check_against_eager(
    target: Target,
    bundle: Path,
    program: Program,
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    prototypes: Sequence[Mapping[str, Array]] = (),
    golden_inputs: Sequence[Mapping[str, NDArray[Any]]] = (),
) -> float:
    """Run inputs that no golden vector covers against the model itself; the largest difference.

    Random inputs of 1, 20 and 100 (where a size is free): the base, each prototype, and a random
    edit at the bounds on one of these in turn; the golden inputs: such edits.
    Raises ExportError where the difference is beyond the program's tolerance.
    """
    run = target.executor(bundle, program)
    base = {name: value.numpy() for name, value in base_tensors(backbone, slots).items()}
    nothing = zero_edit(slots)
    groups = [nothing, *prototypes]
    specs = backbone.input_specs()

    def largest(inputs: tuple[torch.Tensor, ...], changes: Sequence[Changes]) -> float:
        named = {spec.name: x.numpy() for spec, x in zip(specs, inputs, strict=True)}
        return max(
            difference(
                eager(backbone, slots, (prototype, edit), inputs),
                run(named, slot_values(program, slots, base, prototype, edit)),
            )
            for prototype, edit in changes
        )

    def at_bounds(seed: int) -> Changes:
        return groups[seed % len(groups)], edit_at_bounds(slots, seed)

    alone = [(group, nothing) for group in groups]
    random = [backbone.example_inputs(1000 + i, size) for i, size in enumerate(_sizes(backbone))]
    golden = [tuple(torch.tensor(x[spec.name]) for spec in specs) for x in golden_inputs]
    found = {
        "random inputs": max(largest(x, [*alone, at_bounds(i)]) for i, x in enumerate(random)),
        "random edits at the bounds of golden inputs": max(
            (largest(x, [at_bounds(i)]) for i, x in enumerate(golden, len(random))), default=0.0
        ),
    }
    for what, worst in found.items():
        _require(program, what, worst)
    return max(found.values())


def _sizes(backbone: Backbone) -> list[int]:
    """1, 20 and 100, within the limits of every dimension that is free."""
    free = [d for s in backbone.input_specs() for d in s.shape if isinstance(d, DynamicDim)]
    least = max((d.min for d in free), default=1)
    most = min((d.max for d in free), default=100)
    return [min(max(size, least), most) for size in (1, 20, 100)]


def edit_at_bounds(slots: tuple[SlotSpec, ...], seed: int) -> dict[str, Array]:
    """A change with every element at its bound, signs at random."""
    signs = np.random.default_rng(seed)
    return {
        f"{s.name}.{x}": np.float32(s.limits()[x]) * signs.choice(_SIGNS, shape)
        for s in slots
        for x, shape in s.tensors().items()
    }


_SIGNS = np.array([-1, 1], np.float32)


def eager(
    backbone: Backbone,
    slots: tuple[SlotSpec, ...],
    changes: Changes,
    inputs: tuple[torch.Tensor, ...],
) -> Array:
    """What PyTorch makes of inputs with prototype and edit."""
    prototype, edit = (
        {n: torch.from_numpy(v.astype(np.float32))[None] for n, v in c.items()} for c in changes
    )
    whole = compose(slots, prototype, edit)
    with torch.inference_mode():
        output = edited_forward(backbone, slots, whole, tuple(x[None] for x in inputs))
    result: Array = output[0].numpy()
    return result


def _observed(target: Target, bundle: Path, program: Program, golden: Golden) -> float:
    if program.observe_path is None:
        return 0.0
    observe = target.features(bundle, program)
    return max(
        difference(expected, output)
        for inputs, features, posterior in zip(
            golden.inputs, golden.features, golden.posterior, strict=True
        )
        for expected, output in zip((features, posterior), observe(inputs), strict=True)
    )


def check_in_bundle(bundle: Bundle, program: Program) -> Parity:
    """The same for a program of a finished bundle; one that cannot run here is an ExportError."""
    try:
        return check_program(
            targets[program.target](),
            bundle.path,
            program,
            bundle.manifest.slots,
            bundle.base,
            bundle.prototypes.changes,
            bundle.golden,
        )
    except ExportError:
        raise
    except (RuntimeError, LookupError, ValueError, OSError) as error:
        raise ExportError(
            f"{program.target} {program.precision} cannot be run here: {error}"
        ) from None


def faults_in_bundle(bundle: Bundle, program: Program) -> list[str] | None:
    """Faults of how a program's files are built; None where nothing here can look into them."""
    try:
        return targets[program.target]().faults(bundle.path, program)
    except (RuntimeError, LookupError, ValueError, OSError) as error:
        return [f"{program.path} cannot be read: {error}"]


RUN_IN_CPP = tuple(name for name in targets if targets[name].run_in_cpp)
"""Targets whose programs the C++ runner takes."""


def check_in_cpp(bundle: Bundle, program: Program, machine: Machine = "native") -> Parity:
    """The same in the C++ runner, another reader of the bundle; it is built where it was not yet.

    Raises NotRunnableError where it cannot be built, ExportError where the program differs.
    """
    try:
        build(machine)
    except RunnerError as error:
        raise NotRunnableError(str(error)) from None
    try:
        report = run_bundle(bundle.path, machine, program.precision)
    except RunnerError as error:
        raise ExportError(str(error)) from None

    parity = Parity(
        base=report.worst("base") or 0.0,
        prototypes=report.worst("prototype") or 0.0,
        edited=report.worst("edited") or 0.0,
        observed=report.worst("features", "posterior") or 0.0,
        tolerance=report.tolerance,
    )
    for what in ("base", "prototypes", "edited", "observed"):
        _require(program, f"{what}, in C++ on {machine}", getattr(parity, what))
    return parity


def _check_effects(
    run: Executor,
    program: Program,
    slots: tuple[SlotSpec, ...],
    base: Mapping[str, Array],
    golden: Golden,
) -> None:
    """Changing any slot tensor alone must change some output: no edit may be without effect."""
    nothing = zero_edit(slots)
    still = [run(i, slot_values(program, slots, base, nothing, nothing)) for i in golden.inputs]
    for slot in slots:
        for suffix in slot.tensors():
            name = f"{slot.name}.{suffix}"
            partner = {"a": f"{slot.name}.b", "b": f"{slot.name}.a"}.get(suffix, name)
            alone = {**nothing, name: golden.edit[name], partner: golden.edit[partner]}
            values = slot_values(program, slots, base, nothing, alone)
            moved = [run(inputs, values) for inputs in golden.inputs]
            if all(np.array_equal(a, b) for a, b in zip(still, moved, strict=True)):
                raise ExportError(
                    f"{program.target}: changing {name!r} has no effect on any golden output; "
                    "does the model's output depend on this slot?"
                )
