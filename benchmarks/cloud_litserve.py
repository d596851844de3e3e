"""A rival of `bench_cloud.py`: the adapter behind LitServe, batched by it.

LitServe reads JSON, so the observation travels in base64. Its class must be importable: worker
processes are spawned.
"""

import base64
from pathlib import Path
from typing import Any

import litserve  # type: ignore[import-not-found]
import torch
from fastapi import Response  # type: ignore[import-not-found]

from persona.bundles import open_bundle
from persona.formats.edit import MEDIA_TYPE
from persona.formats.observation import Observation, from_safetensors
from persona.issuing import Issued, Issuer, Request
from persona.runs import load_run


class Edits(litserve.LitAPI):  # type: ignore[misc]
    """Observation in, signed edit out."""

    def __init__(self, run: Path, bundle: Path, **settings: Any) -> None:
        super().__init__(**settings)
        self._paths = run, bundle

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the model in a worker process."""
        torch.set_num_threads(1)
        run, bundle = self._paths
        self._issuer = Issuer(load_run(run), open_bundle(bundle))

    def decode_request(self, request: dict[str, str]) -> Observation:
        """Read one observation."""
        spec = self._issuer.bundle.manifest.observation
        return from_safetensors(spec, base64.b64decode(request["observation"])).observation

    def batch(self, inputs: list[Observation]) -> list[Observation]:
        """Several observations, for one forward."""
        return inputs

    def predict(self, x: list[Observation]) -> list[Issued]:
        """One forward."""
        return self._issuer.issue([Request("device", 1, observation) for observation in x])

    def unbatch(self, output: list[Issued]) -> list[Issued]:
        """The answers, in order."""
        return output

    def encode_response(self, output: Issued) -> Response:
        """One answer."""
        headers = {"Persona-Signature": base64.b64encode(output.signature.der).decode()}
        return Response(output.data, media_type=MEDIA_TYPE, headers=headers)


def serve(run: Path, bundle: Path, port: int, *, workers: int, max_batch: int) -> None:
    """As many processes that compute as that speak HTTP."""
    api = Edits(run, bundle, max_batch_size=max_batch, batch_timeout=0.002, api_path="/edits")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=workers, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=port,
        num_api_servers=workers,
        log_level="warning",
        generate_client_file=False,
    )
