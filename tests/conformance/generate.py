"""Write the conformance corpus: `python tests/conformance/generate.py [FOLDER]`.

The same bytes come out on any machine. FOLDER is this file's own unless named.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from generator import wire
from generator.bundles import bundle_cases
from generator.drafts import draft
from generator.drift import SPECS as DRIFT_SPECS
from generator.drift import drift_cases
from generator.edits import edit_cases
from generator.expectations import NO_PROTOTYPES
from generator.keys import key_cases
from generator.observations import SPECS, observation_cases
from generator.probes import probe_cases

FOLDERS = ("edits", "expected", "slots", "observations", "bundles", "probes", "keys", "drift")


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


def hex_dump(data: bytes) -> str:
    """Offset, sixteen bytes in hex, and what is printable of them, a line."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        printable = "".join(chr(b) if 32 <= b < 127 else "." for b in part)
        lines.append(f"{start:04x}  {part.hex(' '):<47}  {printable}".rstrip())
    return "\n".join(lines) + "\n"


def corpus() -> dict[str, bytes]:
    """Path -> bytes of every generated file."""
    edits, observations, bundles = edit_cases(), observation_cases(), bundle_cases()
    probes, probe_files = probe_cases()
    key_documents, drifts = key_cases(), drift_cases()
    files = {**edits.files, **observations.files, **bundles.files, **probe_files}
    files |= key_documents.files | drifts.files
    for expectation in edits.expectations.values():
        files[f"slots/{expectation.family}.base.safetensors"] = expectation.base_file()
        files[f"slots/{expectation.family}.prototypes.safetensors"] = expectation.prototypes_file()
        if expectation.prototypes:
            path = f"slots/{expectation.family}.assignments.safetensors"
            files[path] = expectation.assignments_file()
    keys = {
        "edits": [{"id": key.id, "public_key": key.public} for key in (wire.CLOUD, wire.SECOND)],
        "bundles": [{"id": wire.PUBLISHER.id, "public_key": wire.PUBLISHER.public}],
    }
    files["keys.json"] = _json(keys)
    files["cases.json"] = _json(edits.cases)
    files["expectations.json"] = _json({n: e.to_json() for n, e in edits.expectations.items()})
    files["observations/cases.json"] = _json(observations.cases)
    files["observations/specs.json"] = _json(SPECS)
    files["bundles/cases.json"] = _json(bundles.cases)
    files["probes/cases.json"] = _json(probes)
    files["keys/cases.json"] = _json(key_documents.cases)
    files["drift/cases.json"] = _json(drifts.cases)
    files["drift/specs.json"] = _json(DRIFT_SPECS)
    files["example.txt"] = hex_dump(draft(NO_PROTOTYPES, "example").bytes()).encode()
    return files


def main() -> None:
    """Replace the generated files in the folder."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for folder in FOLDERS:
        shutil.rmtree(target / folder, ignore_errors=True)
    files = corpus()
    for path, data in files.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_bytes(data)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes")


if __name__ == "__main__":
    main()
