"""A simulated fleet: many real devices in a row, each in its own folder, against a real cloud."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from persona.bundles import Bundle, open_bundle
from persona.cli.simulated import query_score
from persona.cli.terminal import CheckFailedError
from persona.data import Dataset
from persona.data import Device as User
from persona.device.client import CloudClient
from persona.device.device import Device
from persona.device.live import OnBase, OnEdit
from persona.device.measure import measure
from persona.evaluation.metrics import METRIC
from persona.evaluation.protocol import (
    TEST_SEED,
    Examined,
    evaluate_devices,
)
from persona.evaluation.provenance import made_by
from persona.evaluation.results import (
    DeviceResult,
    ExportResult,
    LeftOut,
    Results,
    scores,
    table,
)
from persona.formats import schema
from persona.formats.edit import Edit
from persona.formats.measurement import Measurement
from persona.formats.observation import Observation, observation_vector
from persona.runs import Run
from persona.signing import PublicKeys
from persona.training.pipeline import StageProgress
from persona_export.export import Exported
from persona_export.parity import check_in_bundle


@dataclass(frozen=True)
class _Visit:
    """What one device saw and got."""

    phone: Device
    user: User
    observation: Observation
    static: float
    prototype_only: float
    edited: float
    edit: Edit
    edit_bytes: int
    edit_to_active_ms: float
    round_trip_ms: float


@dataclass(frozen=True)
class Fleet:
    """What running the fleet found."""

    run: Run
    exported: Exported
    bundle: Bundle
    devices: tuple[DeviceResult, ...]
    users: tuple[User, ...]
    in_torch: Examined
    latency: Measurement
    exports: tuple[ExportResult, ...]
    data_left_out: LeftOut

    def results(self, quick: bool, stages: dict[str, float], seconds: float) -> Results:
        """The results document."""
        return Results(
            format="persona.results/1",
            model=self.run.model,
            bundle=self.bundle.digest,
            metric=METRIC[self.run.backbone.task],
            quick=quick,
            seeds=(self.run.record.config.seed,),
            trainings=1,
            window=len(self.users[0].window[0]),
            queries=len(self.users[0].targets),
            **scores(self.devices, self.in_torch.rivals),
            table=table([self.in_torch]),
            conditions={},
            calibration=self.in_torch.calibration,
            edit_spread=self.in_torch.edit_spread,
            devices=self.devices,
            prototype_map=self.in_torch.prototype_map,
            curves=schema.encode(self.run.record.curves),
            latency=self.latency,
            exports=self.exports,
            left_out=self.exported.left_out,
            stages=stages,
            seconds=seconds,
            made_by=made_by(self.run),
            data_left_out=self.data_left_out,
        )


def run_fleet(
    run: Run,
    exported: Exported,
    data: Dataset,
    url: str,
    folder: Path,
    *,
    count: int,
    iterations: int,
    progress: StageProgress,
) -> Fleet:
    """Run `count` unseen devices through observe, ask, verify, swap, probe and predict."""
    users = data.devices("test", count, TEST_SEED + run.record.config.seed)
    step = progress(f"running {count} unseen devices")
    visits = []
    for index, user in enumerate(users):
        bundle = open_bundle(exported.path, PublicKeys([run.bundle_key().public]))
        phone = Device(bundle, folder / user.name)
        with CloudClient(url, bundle.manifest.model) as client:
            visits.append(_visit(phone, user, client))
        step(index + 1, 2 * count)
    controls = []
    for index, visit in enumerate(visits):
        controls.append(_under_other_edit(visit, visits[index - 1]))
        step(count + index + 1, 2 * count)

    progress("measuring latency")
    first = visits[0]
    query = [column[:1] for column in first.user.queries]
    active = float(np.median([v.edit_to_active_ms for v in visits]))
    latency = measure(first.phone.live, query, iterations, active)

    progress("scoring rivals and checking programs")
    in_torch = evaluate_devices(run, data, users)
    devices = tuple(
        DeviceResult(
            name=visit.user.name,
            static=visit.static,
            prototype_only=visit.prototype_only,
            edited=visit.edited,
            other_device_control=control,
            prototype=-1 if visit.edit.info.prototype is None else visit.edit.info.prototype,
            edit_bytes=visit.edit_bytes,
            edit_to_active_ms=visit.edit_to_active_ms,
            round_trip_ms=visit.round_trip_ms,
        )
        for visit, control in zip(visits, controls, strict=True)
    )
    bundle = visits[0].phone.bundle
    return Fleet(
        run=run,
        exported=exported,
        bundle=bundle,
        devices=devices,
        users=tuple(users),
        in_torch=in_torch,
        latency=latency,
        exports=_check_exports(bundle),
        data_left_out=LeftOut.of(data),
    )


def _visit(phone: Device, user: User, client: CloudClient) -> _Visit:
    """One device: static, then its prototype without the cloud, then its edit from the cloud."""
    static = query_score(phone, user)
    observation = phone.observe(user.window)
    vector = observation_vector(phone.bundle.manifest.observation, observation)
    phone.live.use_prototype(phone.bundle.prototypes.assign(vector))
    prototype_only = query_score(phone, user)
    phone.live.resume(OnBase())
    came = phone.personalise(client, user.window)
    if (
        not isinstance(came.state, OnEdit)
        or came.edit_bytes is None
        or came.edit_to_active_ms is None
        or came.round_trip_ms is None
    ):
        raise CheckFailedError("demo.device", f"device {user.name} got no edit: {came.problem}")
    return _Visit(
        phone=phone,
        user=user,
        observation=observation,
        static=static,
        prototype_only=prototype_only,
        edited=query_score(phone, user),
        edit=came.state.edit,
        edit_bytes=came.edit_bytes,
        edit_to_active_ms=came.edit_to_active_ms,
        round_trip_ms=came.round_trip_ms,
    )


def _under_other_edit(visit: _Visit, other: _Visit) -> float:
    """The control: the same device under another device's edit, which it would itself refuse."""
    visit.phone.live.use_edit(other.edit)
    score = query_score(visit.phone, visit.user)
    visit.phone.live.use_edit(visit.edit)
    return score


def _check_exports(bundle: Bundle) -> tuple[ExportResult, ...]:
    """Every program once more against the golden vectors, with its size."""
    manifest = bundle.manifest
    found = []
    for program in manifest.programs:
        parity = check_in_bundle(bundle, program)
        places = {program.path, program.observe_path} - {None}
        size = sum(
            file.size
            for path, file in manifest.files.items()
            if any(path == place or path.startswith(f"{place}/") for place in places)
        )
        found.append(
            ExportResult(
                target=program.target,
                precision=program.precision,
                bytes=size,
                verified=program.verified,
                tolerance=parity.tolerance,
                base_difference=parity.base,
                prototype_difference=parity.prototypes,
                edited_difference=parity.edited,
                delegation=program.delegation,
            )
        )
    return tuple(found)
