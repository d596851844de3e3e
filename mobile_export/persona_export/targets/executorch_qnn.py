"""ExecuTorch on Qualcomm's NPU through QNN, where its SDK is installed.

Lowering needs Qualcomm's proprietary SDK. Without it nothing is imported, because the import would
try to download it. The path with it follows ExecuTorch 1.5.1 and has not been run by the project.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from persona_export.executorch_program import Lowered, Method, lower_with
from persona_export.lowered_target import LoweredTarget
from persona_export.targets.base import ExportError, Precision, targets

SDK = "QNN_SDK_ROOT"


@targets.register("executorch-qnn")
class ExecutorchQnn(LoweredTarget):
    """ExecuTorch on Qualcomm's NPU (QNN, needs its SDK)."""

    name = "executorch-qnn"
    backend = "QNN"
    precisions: ClassVar[tuple[Precision, ...]] = ("fp16",)
    lacks: ClassVar[dict[Precision, str]] = {
        "fp32": "Qualcomm's NPU does not compute in it",
        "int8": "8 bits need the quantiser of Qualcomm's SDK, calibrated on samples of data, which "
        "this target does not use; with the SDK fp16 can be had. Nothing was downloaded",
    }
    tolerance: ClassVar[dict[Precision, float]] = {"fp16": 1e-2}

    def lower(self, methods: Mapping[str, Method], precision: Precision) -> Lowered:  # noqa: ARG002
        folder = os.environ.get(SDK)
        if not folder or not (Path(folder) / "lib").is_dir():
            raise ExportError(
                "executorch-qnn needs Qualcomm's SDK, which is not here: download Qualcomm AI "
                f"Engine Direct from Qualcomm's developer site, unpack it and set {SDK} to its "
                "folder (the one that holds `lib`). Nothing was downloaded"
            )

        def to_edge(_: Mapping[str, Any]) -> Any:
            from executorch.backends.qualcomm.serialization.qc_schema import QcomChipset
            from executorch.backends.qualcomm.utils.utils import (
                generate_htp_compiler_spec,
                generate_qnn_executorch_compiler_spec,
                to_edge_transform_and_lower_to_qnn,
            )

            specs = generate_qnn_executorch_compiler_spec(
                soc_model=QcomChipset.SM8650,
                backend_options=generate_htp_compiler_spec(use_fp16=True),
            )
            return to_edge_transform_and_lower_to_qnn(
                {name: method.module for name, method in methods.items()},
                {name: method.inputs for name, method in methods.items()},
                dict.fromkeys(methods, specs),
                dynamic_shapes={name: (method.shapes,) for name, method in methods.items()},
            )

        return lower_with(to_edge, methods, self.backend, "fp32")
