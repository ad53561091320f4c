"""A bundle on disk: one folder with a manifest, the plan, the certificates, and the artifacts.

`bundle.json` names every other file with its size and SHA-256, and carries its own digest, so that
nothing in the folder can change unseen. The folder appears whole, by one rename, or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoglm.bundle.codec import decode, encode
from autoglm.bundle.hashes import FileFacts, fingerprint, problems, safe_path
from autoglm.errors import BundleError, WriteError
from autoglm.messages import tr
from autoglm.spec import Artifact, Certificate, Plan, TensorInfo
from autoglm.tensor.files import atomic_folder, copy_tree

FORMAT = "autoglm-bundle"
VERSION = 1
MANIFEST = "bundle.json"
ARTIFACT = "artifact.json"
_LIMIT = 256 << 20  # no JSON file of a bundle is this large; a larger one is not read
_SELF = frozenset({MANIFEST})


@dataclass(frozen=True, slots=True)
class Manifest:
    """`bundle.json`."""

    format: str
    version: int
    written_by: str
    digest: str  # of this manifest without this key: the bundle's identity
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    artifacts: Mapping[str, Artifact]
    files: Mapping[str, FileFacts]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that was read."""

    folder: Path
    manifest: Manifest
    plan: Plan
    certificates: tuple[Certificate, ...] = ()
    measurements: tuple[Mapping[str, Any], ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def artifacts(self) -> Mapping[str, Artifact]:
        """Partition id -> its artifact, whose files lie in `artifacts/<id>/`."""
        return self.manifest.artifacts

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What the model takes."""
        return self.manifest.inputs

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What the model gives."""
        return self.manifest.outputs

    def to_dict(self) -> dict[str, Any]:
        """Everything the bundle says of itself, as JSON values."""
        return {
            "folder": str(self.folder),
            **encode(self.manifest),
            "plan": encode(self.plan),
            "certificates": encode(self.certificates),
            "measurements": encode(self.measurements),
            "report": encode(self.report),
        }


def write_bundle(
    folder: Path,
    source: Path,
    *,
    plan: Plan,
    artifacts: Mapping[str, Artifact],
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    certificates: Sequence[Certificate] = (),
    measurements: Sequence[Mapping[str, Any]] = (),
    report: Mapping[str, Any] | None = None,
) -> Path:
    """Write a bundle at `folder` from the artifacts in `source/artifacts/<id>`.

    An older bundle there is replaced in one step; anything else that is not an empty folder is
    refused with WriteError. On failure nothing is left and the older bundle stays.
    """
    require_replaceable(folder)
    with atomic_folder(folder, replace=True) as place:
        for name in artifacts:
            copy_tree(source / "artifacts" / name, place / "artifacts" / name)
        _write_json(place / "plan.json", encode(plan))
        _write_json(place / "certificates.json", encode(tuple(certificates)))
        _write_json(place / "measurements.json", encode(tuple(measurements)))
        _write_json(place / "report.json", encode(report or {}))
        body = {
            "format": FORMAT,
            "version": VERSION,
            "written_by": f"autoglm {_version()}",
            "inputs": encode(tuple(inputs)),
            "outputs": encode(tuple(outputs)),
            "artifacts": encode(artifacts),
            "files": encode(fingerprint(place)),
        }
        _write_json(place / MANIFEST, {**body, "digest": _digest(body)})
    return folder


def read_bundle(folder: str | Path, verify: str = "hash") -> Bundle:
    """The bundle at `folder`; BundleError where a file is missing, changed, or of a newer format.

    `verify`: "hash" reads every file, "size" only looks at sizes, "none" at the manifest alone.
    """
    place = Path(folder)
    manifest = _manifest(place)
    if verify not in ("hash", "size", "none"):
        raise BundleError("verify is 'hash', 'size' or 'none'; found {found!r}.", found=verify)
    wrong = verify != "none" and problems(
        place, manifest.files, hashed=verify == "hash", skip=_SELF
    )
    if wrong:
        raise _damaged(place, "; ".join(wrong[:5]))
    for name, artifact in manifest.artifacts.items():
        safe_path(place, "/".join(filter(None, ("artifacts", name, artifact.entry))))
    plan = decode(Plan, _read_json(place / "plan.json"), "plan.json")
    _require_consistent(place, manifest, plan)
    return Bundle(
        place,
        manifest,
        plan,
        _rows(Certificate, place / "certificates.json"),
        _rows(dict, place / "measurements.json"),
        decode(dict, _read_json(place / "report.json"), "report.json"),
    )


def _require_consistent(place: Path, manifest: Manifest, plan: Plan) -> None:
    backends = {p.id: p.backend for p in plan.partitions}
    if backends != {name: artifact.backend for name, artifact in manifest.artifacts.items()}:
        raise _damaged(place, "plan.json and the artifacts name different partitions or backends")
    made = {name for p in plan.partitions for name in p.outputs} | {i.name for i in manifest.inputs}
    if missing := [o.name for o in manifest.outputs if o.name not in made]:
        raise _damaged(place, f"no partition gives the output {missing[0]!r}")


def verify(folder: str | Path) -> list[str]:
    """What is wrong with the bundle at `folder`, a sentence each; [] where every hash is right."""
    place = Path(folder)
    try:
        manifest = _manifest(place)
    except BundleError as error:
        return [error.localized()]
    return problems(place, manifest.files, skip=_SELF)


def is_bundle(folder: str | Path) -> bool:
    """Whether `folder` looks like a bundle, whole or not."""
    return (Path(folder) / MANIFEST).is_file()


def write_artifact(folder: Path, artifact: Artifact) -> None:
    """Write `artifact` beside its files, so that the folder stands for itself."""
    _write_json(folder / ARTIFACT, encode(artifact))


def read_artifact(folder: Path) -> Artifact:
    """What `write_artifact` wrote into `folder`."""
    return decode(Artifact, _read_json(folder / ARTIFACT), ARTIFACT)


def require_replaceable(folder: Path) -> None:
    """WriteError where something other than a bundle, or an empty folder, stands at `folder`."""
    if is_bundle(folder) or not folder.exists():
        return
    if folder.is_dir() and not any(folder.iterdir()):
        return
    raise WriteError(
        "{path} exists and is not a bundle; it is left as it is.",
        hint="Name a new folder for the output, or remove this one first.",
        path=str(folder),
    )


def _manifest(place: Path) -> Manifest:
    if not place.exists():
        raise BundleError("There is no bundle at {path}.", path=str(place))
    if not is_bundle(place):
        raise BundleError(
            "{path} is not a bundle: it has no bundle.json.",
            hint="`autoglm compile MODEL -o FOLDER` writes one.",
            path=str(place),
        )
    data = _read_json(place / MANIFEST)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError("{path} is not a bundle of ours.", path=str(place / MANIFEST))
    _require_version(place, data.get("version"))
    digest = data.pop("digest", "")
    if _digest(data) != digest:
        raise _damaged(place, tr("{file} has changed since it was written", file=MANIFEST))
    return decode(Manifest, {**data, "digest": digest}, MANIFEST)


def _require_version(place: Path, version: object) -> None:
    if version == VERSION:
        return
    raise BundleError(
        "The bundle at {path} is of format {found!r}; this autoglm reads format {known}.",
        hint="Upgrade autoglm (pip install -U open-autoglm), or compile the model again.",
        path=str(place),
        found=version,
        known=VERSION,
    )


def _damaged(place: Path, reason: str) -> BundleError:
    return BundleError(
        "The bundle at {path} is damaged: {reason}.",
        hint="Compile it again, or copy it anew from where it came.",
        path=str(place),
        reason=reason,
    )


def _rows(kind: type[Any], path: Path) -> tuple[Any, ...]:
    rows = decode(list, _read_json(path), path.name)
    return tuple(decode(kind, row, f"{path.name}[{i}]") for i, row in enumerate(rows))


def _digest(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_json(path: Path) -> Any:
    try:
        if path.is_symlink() or path.stat().st_size > _LIMIT:
            raise _damaged(path.parent, tr("{file} is not a file of ours", file=path.name))
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        reason = tr("{file} cannot be read: {reason}", file=path.name, reason=str(error)[:200])
        raise _damaged(path.parent, reason) from error


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("open-autoglm")
    except PackageNotFoundError:
        return "0"
