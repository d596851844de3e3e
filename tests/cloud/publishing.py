"""What operators do in tests: versions on a shelf, published and rolled out over HTTP."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from persona.bundles import Bundle, open_bundle
from persona.runs import Run
from persona.signing import encode_signature


def republished(run: Run, bundle: Bundle, path: Path, **fields: Any) -> Bundle:
    """Another version: the bundle with other manifest fields, signed by the same publisher."""
    shutil.copytree(bundle.path, path)
    manifest = json.loads((path / "manifest.json").read_text()) | fields
    data, key = json.dumps(manifest).encode(), run.bundle_key()
    (path / "manifest.json").write_bytes(data)
    (path / "manifest.sig").write_bytes(encode_signature(key.sign(data), key.public))
    return open_bundle(path)


def shelf_in(folder: Path, run: Run, bundle: Bundle, names: tuple[str, ...]) -> Path:
    """Folders that may be published: the run, and bundles of versions with these names."""
    shelf = folder / "versions"
    shelf.mkdir()
    shutil.copytree(run.path, shelf / "run")
    for name in names:
        republished(run, bundle, shelf / name, created_at=f"the {name}")
    return shelf


@dataclass(frozen=True)
class Operator:
    """Publishes and rolls out over HTTP."""

    http: httpx.Client
    model: str
    secret: str

    @property
    def place(self) -> str:
        return f"/v1/models/{self.model}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    def publish(self, bundle: str = "second", run: str = "run") -> httpx.Response:
        asked = {"run": run, "bundle": bundle}
        return self.http.post(f"{self.place}/versions", json=asked, headers=self.headers)

    def change(self, kind: str, **fields: Any) -> httpx.Response:
        asked = {"kind": kind, **fields}
        return self.http.patch(f"{self.place}/rollout", json=asked, headers=self.headers)

    def published(self, bundle: str = "second") -> str:
        answer = self.publish(bundle)
        assert answer.status_code == 201, answer.text
        digest: str = answer.json()["bundle"]
        return digest

    def detail(self) -> dict[str, Any]:
        said: dict[str, Any] = self.http.get(self.place).json()
        return said

    def states(self) -> dict[str, str]:
        return {v["bundle"]: v["state"] for v in self.detail()["versions"]}
