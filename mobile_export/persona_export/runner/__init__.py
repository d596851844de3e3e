"""A bundle's ExecuTorch program run from C++, as an app does, here and as on an arm64 phone.

`cpp/` is a small program, built against the ExecuTorch wheel's own CMake package. It takes the
bundle folder itself, not a plan that Python wrote: so it is a reader of its own, of manifest,
safetensors and the arithmetic of slots, and what it finds does not rest on the code it checks.
JSON is left to nlohmann/json, which Debian packages. Signature and file digests are not looked at;
`persona bundle verify` does that.
"""

from persona_export.runner.run import Case, Report, run_bundle
from persona_export.runner.toolchain import MACHINES, Machine, MissingToolsError, RunnerError

__all__ = [
    "MACHINES",
    "Case",
    "Machine",
    "MissingToolsError",
    "Report",
    "RunnerError",
    "run_bundle",
]
