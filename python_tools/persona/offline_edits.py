"""Edits for a file of observations, without a server: part by part, resumable, served as files.

OUT/plan.json                    what is computed from what; written first
OUT/edits/part-00000.zip         edit files, not compressed, so that a range of bytes is an edit
OUT/index/part-00000.parquet     a row for each observation: where its edit lies, its signature
OUT/manifest.json                the parts with their digests; written last

Every forward has the same shape, filled up where observations run out. Then a row's bytes do not
depend on the rows beside it, nor on who computed which part. docs/decisions say why this format.
"""

import hashlib
import io
import json
import math
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from persona.bundles import Bundle, open_bundle
from persona.durable import check_place, sha256_of, write_atomic
from persona.formats import schema
from persona.formats.edit import format_time, parse_time
from persona.formats.errors import Code, FormatError
from persona.formats.observation import Observation, from_safetensors, parse_json
from persona.formats.slots import tensor_names
from persona.formats.strict_json import MAX_WHOLE
from persona.issuing import Issued, Issuer, Request, check_named
from persona.runs import Run, load_run
from persona.signing import PublicKeys, SigningKey

FORMAT = "persona.edits/1"
PLAN, MANIFEST = "plan.json", "manifest.json"

FORWARD = 64
"""Observations in every forward."""

_PART_BYTES = 64 * 2**20
_PART_FORWARDS = 128
_HEADER = 2048
_COPY = "observations.parquet"
_CSV_BLOCK = 16 * 2**20
_PARQUET_ROWS = 1024
_COLUMNS = {"device": pa.string(), "sequence": pa.int64(), "observation": pa.string()}
_LOCAL_HEADER = 30
"""Bytes before a member's name in a zip."""

_INDEX = pa.schema(
    {
        "device": pa.string(),
        "sequence": pa.int64(),
        "prototype": pa.int64(),
        "part": pa.string(),
        "offset": pa.int64(),
        "size": pa.int64(),
        "key_id": pa.string(),
        "signature": pa.binary(),
        "problem": pa.string(),
        "detail": pa.string(),
    }
)


class PlanError(ValueError):
    """A computation that cannot begin or go on; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """What a folder of edits is computed from. The same plan gives the same bytes.

    bundle: digest. made_with: digests of the run's files. observations: sha256 of the file, rows:
    in it; part_rows: in one part. issued_at, expires_at: of every edit.
    """

    format: str
    model: str
    bundle: str
    made_with: dict[str, str]
    key_id: str
    observations: str
    rows: int
    part_rows: int
    issued_at: str
    expires_at: str

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.rows // self.part_rows)


@dataclass(frozen=True)
class Part:
    """A finished part. problems: how many observations were refused, by code."""

    name: str
    edits: int
    problems: dict[str, int]
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a complete folder holds."""

    plan: Plan
    parts: tuple[Part, ...]


def plan_edits(
    observations: Path,
    run_path: Path,
    bundle_path: Path,
    out: Path,
    lifetime: timedelta,
    part_rows: int | None = None,
    key: SigningKey | None = None,
) -> Plan:
    """Begin a folder of edits, or find the one that was begun with the same run, bundle and file.

    observations: `.csv` or `.parquet` with the columns device, sequence and observation (JSON
    text, or safetensors as binary). part_rows: as many as 64 MiB of edits hold, unless it is given.
    key: one of the run's keys folder that devices have learned of; the run's first one, which the
    bundle must name, unless it is given. Raises PlanError, PlaceError, and what opening run and
    bundle raises.
    """
    run, bundle = _opened(run_path, bundle_path)
    signing, digest = key or run.edit_key(), _sha256(observations)
    if key is None:
        check_named(signing, bundle)
    Issuer(run, bundle, lifetime, lambda: signing)
    if (out / PLAN).is_file():
        found = read_plan(out)
        wanted = replace(
            found,
            bundle=bundle.digest,
            made_with=run.record.files,
            key_id=signing.id,
            observations=digest,
            expires_at=format_time(parse_time(found.issued_at) + lifetime),
        )
        other = [name for name, value in vars(wanted).items() if value != getattr(found, name)]
        if other:
            raise PlanError(
                f"{out} was begun with other {', '.join(other)}; choose another place, or remove "
                "it to begin again"
            )
        return found
    check_place(out)
    now = datetime.now(UTC)
    size = part_rows or _part_rows(bundle)
    out.mkdir(parents=True, exist_ok=True)
    try:
        rows = _copy_in_parts(observations, out / _COPY, size)
        for folder in ("edits", "index"):
            (out / folder).mkdir()
        plan = Plan(
            format=FORMAT,
            model=run.model,
            bundle=bundle.digest,
            made_with=run.record.files,
            key_id=signing.id,
            observations=digest,
            rows=rows,
            part_rows=size,
            issued_at=format_time(now),
            expires_at=format_time(now + lifetime),
        )
        write_atomic(out / PLAN, _json(plan))
    except BaseException:
        shutil.rmtree(out)
        raise
    return plan


def read_plan(out: Path) -> Plan:
    """The plan of a folder that was begun. Raises PlanError."""
    try:
        value = json.loads((out / PLAN).read_text(encoding="utf-8"))
        return schema.decode(Plan, value, PLAN)
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{out / PLAN} cannot be read ({error}); remove {out} and begin again"
        ) from None


def unfinished(plan: Plan, out: Path) -> list[int]:
    """The parts that are still to be made."""
    return [part for part in range(plan.parts) if not _index_path(out, part).is_file()]


def finish(plan: Plan, out: Path) -> Manifest:
    """Write the manifest, once every part is there, and clear away what interruptions left."""
    parts = tuple(_read_part(_index_path(out, part)) for part in range(plan.parts))
    manifest = Manifest(plan, parts)
    write_atomic(out / MANIFEST, _json(manifest))
    for left in (out / _COPY, *out.glob("*/.*")):
        left.unlink(missing_ok=True)
    return manifest


class PartMaker:
    """Makes parts of one plan, one at a time; the model is loaded once."""

    def __init__(self, run: Path, bundle: Path, out: Path) -> None:
        plan = read_plan(out)
        self._out, self._part_rows = out, plan.part_rows
        self._issued_at = parse_time(plan.issued_at)
        lifetime = parse_time(plan.expires_at) - self._issued_at
        key = _private_key(run / "keys", plan.key_id)
        self._issuer = Issuer(*_opened(run, bundle), lifetime, lambda: key)
        self._observations = pq.ParquetFile(out / _COPY)

    def make(self, part: int) -> Part:
        """Make a part: its edits first, then its index, each whole or not at all."""
        name, first = _name(part), part * self._part_rows
        table = self._observations.read_row_group(part, columns=list(_COLUMNS))
        columns = (column.to_pylist() for column in table.columns)
        rows = [self._row(*values) for values in zip(*columns, strict=True)]
        archive, answered = io.BytesIO(), {}
        good = [(at, row) for at, row in enumerate(rows) if isinstance(row, Request)]
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as edits:
            for at, issued in self._issued(good):
                member = zipfile.ZipInfo(f"{first + at:012}.edit")
                edits.writestr(member, issued.data)
                offset = member.header_offset + _LOCAL_HEADER + len(member.filename)
                answered[at] = (issued, offset)
        data = archive.getvalue()
        index = [
            _entry(name, row, *answered[at]) if isinstance(row, Request) else row
            for at, row in enumerate(rows)
        ]
        problems: dict[str, int] = {}
        for entry in index:
            if entry["problem"] is not None:
                problems[entry["problem"]] = problems.get(entry["problem"], 0) + 1
        done = Part(name, len(good), problems, hashlib.sha256(data).hexdigest())
        write_atomic(self._out / "edits" / f"{name}.zip", data)
        _write_index(_index_path(self._out, part), index, done)
        return done

    def _row(self, device: str | None, sequence: int | None, data: str | bytes | None) -> Any:
        """A request, or the index's entry of an observation that is refused."""
        try:
            return Request(*_addressee(device, sequence), self._observation(data))
        except FormatError as error:
            entry = dict.fromkeys(_INDEX.names)
            return entry | {
                "device": device,
                "sequence": sequence,
                "problem": str(error.code),
                "detail": str(error.args[0]),
            }

    def _observation(self, data: str | bytes | None) -> Observation:
        bundle = self._issuer.bundle
        spec, limit = bundle.manifest.observation, bundle.manifest.max_observation_bytes
        if data is None:
            raise FormatError(Code.OBSERVATION_INVALID, "the row has no observation")
        size = len(data.encode()) if isinstance(data, str) else len(data)
        if size > limit:
            raise FormatError(
                Code.OBSERVATION_TOO_LONG, f"the observation has {size} bytes, at most {limit} fit"
            )
        read = (
            parse_json(spec, data.encode())
            if isinstance(data, str)
            else from_safetensors(spec, data)
        )
        if read.bundle != bundle.digest:
            raise FormatError(
                Code.OBSERVATION_OTHER_BASE,
                f"expected an observation for {bundle.digest[:12]}…, got {read.bundle!r:.16}",
            )
        return read.observation

    def _issued(self, good: list[tuple[int, Request]]) -> Iterator[tuple[int, Issued]]:
        """Edits in forwards of one shape, the last one filled up."""
        for start in range(0, len(good), FORWARD):
            some = good[start : start + FORWARD]
            requests = [request for _, request in some]
            filled = requests + requests[:1] * (FORWARD - len(requests))
            made = self._issuer.issue(filled, self._issued_at)
            yield from zip((at for at, _ in some), made, strict=False)


def _opened(run_path: Path, bundle_path: Path) -> tuple[Run, Bundle]:
    run = load_run(run_path)
    return run, open_bundle(bundle_path, PublicKeys([run.bundle_key().public]))


def _private_key(folder: Path, name: str) -> SigningKey:
    for path in sorted(folder.glob("*.pem")):
        key = SigningKey.load_or_create(path)
        if key.id == name:
            return key
    raise PlanError(
        f"{folder} holds no private key {name}, with which this was begun; put it there"
    )


def _addressee(device: str | None, sequence: int | None) -> tuple[str, int]:
    if not device or sequence is None or not 1 <= sequence <= MAX_WHOLE:
        raise FormatError(
            Code.METADATA_INVALID,
            f"expected a device and a sequence from 1 on, got {device!r:.80} and {sequence}",
        )
    return device, sequence


def _entry(name: str, request: Request, issued: Issued, offset: int) -> dict[str, Any]:
    return {
        "device": request.device,
        "sequence": request.sequence,
        "prototype": issued.info.prototype,
        "part": name,
        "offset": offset,
        "size": len(issued.data),
        "key_id": issued.signature.key_id,
        "signature": issued.signature.der,
        "problem": None,
        "detail": None,
    }


def _name(part: int) -> str:
    return f"part-{part:05}"


def _index_path(out: Path, part: int) -> Path:
    return out / "index" / f"{_name(part)}.parquet"


def _write_index(path: Path, entries: list[dict[str, Any]], part: Part) -> None:
    said = {FORMAT: json.dumps(schema.encode(part))}
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(entries, _INDEX.with_metadata(said)), buffer)
    write_atomic(path, buffer.getvalue())


def _read_part(path: Path) -> Part:
    said = pq.read_schema(path).metadata[FORMAT.encode()]
    return schema.decode(Part, json.loads(said), path.name)


def _part_rows(bundle: Bundle) -> int:
    """As many as fit into a part that is held in memory, in whole forwards."""
    values = sum(math.prod(shape) for shape in tensor_names(bundle.manifest.slots).values())
    size = 2 * values + 4 * bundle.golden.base[0].size + _HEADER
    return FORWARD * max(1, min(_PART_FORWARDS, _PART_BYTES // (FORWARD * size)))


def _copy_in_parts(observations: Path, copy: Path, part_rows: int) -> int:
    """Copy observations so that a part can be read without what is before it; returns the rows.

    A part is a row group.
    """
    if observations.suffix not in _READERS:
        raise PlanError(f"expected a .csv or .parquet file, got {observations.name}")
    try:
        with ExitStack() as stack:
            found, batches = _READERS[observations.suffix](observations, stack)
            _check_columns(observations, found)
            writer = stack.enter_context(pq.ParquetWriter(copy, found))
            return sum(_write_rows(writer, found, batches, part_rows))
    except (pa.ArrowException, KeyError) as error:
        raise PlanError(
            f"{observations} cannot be read with the columns {', '.join(_COLUMNS)}: {error}"
        ) from None


def _read_csv(path: Path, stack: ExitStack) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    rows = stack.enter_context(
        pyarrow.csv.open_csv(
            path,
            read_options=pyarrow.csv.ReadOptions(block_size=_CSV_BLOCK),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=_COLUMNS, include_columns=list(_COLUMNS)
            ),
        )
    )
    return pa.schema(_COLUMNS), rows


def _read_parquet(path: Path, stack: ExitStack) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    file = stack.enter_context(pq.ParquetFile(path, pre_buffer=False))
    found = pa.schema([file.schema_arrow.field(name) for name in _COLUMNS])
    return found, file.iter_batches(_PARQUET_ROWS, columns=list(_COLUMNS))


_READERS = {".csv": _read_csv, ".parquet": _read_parquet}


def _check_columns(path: Path, found: pa.Schema) -> None:
    text, data = (
        (pa.types.is_string, pa.types.is_large_string),
        (
            pa.types.is_binary,
            pa.types.is_large_binary,
        ),
    )
    wanted = {"device": text, "sequence": (pa.types.is_integer,), "observation": (*text, *data)}
    for name, kinds in wanted.items():
        if not any(kind(found.field(name).type) for kind in kinds):
            raise PlanError(
                f"{path}: column {name} is {found.field(name).type}; expected device as text, "
                "sequence as whole numbers, observation as text (JSON) or binary (safetensors)"
            )


def _write_rows(
    writer: pq.ParquetWriter, found: pa.Schema, batches: Iterable[pa.RecordBatch], part_rows: int
) -> Iterator[int]:
    """Write row groups of `part_rows`; yields the rows of each."""
    waiting = pa.Table.from_batches([], found)
    for batch in batches:
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch.cast(found)])])
        while len(waiting) >= part_rows:
            writer.write_table(waiting.slice(0, part_rows), row_group_size=part_rows)
            waiting = waiting.slice(part_rows)
            yield part_rows
    if len(waiting):
        writer.write_table(waiting, row_group_size=part_rows)
        yield len(waiting)


def _sha256(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        raise PlanError(f"{path} cannot be read: {error.strerror}") from None


def _json(value: Plan | Manifest) -> bytes:
    return (json.dumps(schema.encode(value), indent=1) + "\n").encode()
