"""Proof that a program does what eager PyTorch does, slot by slot, on the golden vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persona.bundles import Bundle
from persona.formats.bundle_tensors import Golden
from persona.formats.manifest import Program
from persona.formats.slots import Array, SlotSpec, effective, sum_changes, zero_edit
from persona_export.targets import Executor, ExportError, Target, targets


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
        found = getattr(parity, what)
        if not found <= program.tolerance:
            raise ExportError(
                f"{program.target} {program.precision} differs from PyTorch by {found:.2g} "
                f"({what}); {program.tolerance:g} is allowed. "
                "Does the model's forward call each slot's layer as a module?"
            )
    _check_effects(run, program, slots, base, golden)
    return parity


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
