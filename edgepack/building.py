"""From a model to a bundle, by the names and paths that people give: quantize, bundle, inspect, verify, compare."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.documents import BundleDocument, QuantizeDocument, VerifyDocument
from edgepack.events import Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.bundle import Bundle
    from edgepack.target import Platform, Target


def quantize(
    model: str | Path,
    *,
    target: str | Path | Target,
    output: str | Path,
    calibration: str | Path | None = None,
    evaluation: str | Path | None = None,
    check_set: str | Path | None = None,
    metric: str = "top1",
    batch: int | None = 1,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> QuantizeDocument:
    """Convert a SavedModel folder, .keras, .h5 (Keras 2 or 3) or float .tflite to what ``target`` asks for.

    ``calibration``, ``evaluation`` and ``check_set`` are sets of samples, a .npz or a folder of .npy;
    ``FILE#100:500`` takes rows. ``metric`` is "top1" or ``module:function`` of (outputs, labels). ``batch`` is
    pinned; None leaves it as it is. Writes ``output`` (OUT.tflite), OUT.provenance.json and, with an evaluation or
    check set, OUT.check.npz. With ``dry_run`` the model is made in a temporary folder and thrown away, so that the
    document tells what would be there.

    Raises InputError about the model, the samples, the target or the options, and MisfitError where the converted model
    is not what the target takes, or cannot be made.
    """
    from edgepack.quantize import quantize as run

    output = Path(output)
    with _written(output, dry_run=dry_run) as place:
        document = run(
            model,
            target=target,
            output=place,
            calibration=calibration,
            evaluation=evaluation,
            check_set=check_set,
            metric=metric,
            batch=batch,
            report=report,
        )
    return dataclasses.replace(
        document,
        model=dataclasses.replace(document.model, path=str(output)),
        check_set=document.check_set and str(output.with_name(Path(document.check_set).name)),
        provenance=str(output.with_name(Path(document.provenance).name)),
        uncompiled=document.uncompiled and str(output.with_name(Path(document.uncompiled).name)),
    )


def bundle(
    model: str | Path,
    *,
    target: str | Path | Target,
    name: str,
    version: str,
    output: str | Path,
    platforms: Sequence[Platform] | None = None,
    with_runtime: bool = True,
    wheel_dir: str | Path | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> BundleDocument:
    """Pack a .tflite, the check set beside it, the loader and the runtime's wheels into one reproducible file.

    ``target`` is a profile's name, file or value; ``platforms`` bundles for those instead of the target's. With
    ``dry_run`` the bundle is made in a temporary folder and thrown away, so that the document tells what would be
    there.

    Raises InputError about the model, the target, the names and the wheels, MisfitError where no runtime fits a
    platform.
    """
    from edgepack.bundle.build import build_bundle

    output = Path(output)
    with _written(output, dry_run=dry_run) as place:
        document = build_bundle(
            Path(model),
            target=_target(target),
            name=name,
            version=version,
            output=place,
            platforms=platforms,
            with_runtime=with_runtime,
            wheel_dir=None if wheel_dir is None else Path(wheel_dir),
            report=report,
        )
    return dataclasses.replace(document, path=str(output))


def inspect(path: str | Path) -> BundleDocument:
    """What a bundle holds. Raises InputError where it is none, IntegrityError where it was cut or changed."""
    from edgepack.bundle import document, open_bundle

    return document(open_bundle(Path(path)))


def verify(path: str | Path, *, report: Reporter = ignore_events) -> VerifyDocument:
    """Recompute every digest of a bundle. Raises as :func:`inspect`, and IntegrityError "digest-mismatch"."""
    from edgepack.bundle import verify_bundle

    return verify_bundle(Path(path), report)


def diff_bundles(before: str | Path, after: str | Path) -> dict[str, Any]:
    """What changed from one bundle to another: ``changes`` has a line for each field and file that differs."""
    from edgepack.bundle import diff_bundles as compare
    from edgepack.bundle import open_bundle

    old, new = open_bundle(Path(before)), open_bundle(Path(after))
    found = compare(old, new)
    old_sizes = {file.path: file.bytes for file in old.manifest.files}
    new_sizes = {file.path: file.bytes for file in new.manifest.files}
    changes = _differences("", _fields(old), _fields(new))
    changes += [
        {"what": path, "before": _bytes(old_sizes.get(path)), "after": _bytes(new_sizes.get(path))}
        for path in sorted([*found["added"], *found["removed"], *(change["path"] for change in found["changed"])])
    ]
    return {"schema": 1, **found, "changes": changes}


def _fields(bundle: Bundle) -> dict[str, Any]:
    """The manifest but for its list of files."""
    value: dict[str, Any] = json.loads(bundle.manifest_bytes)
    return {key: inner for key, inner in value.items() if key != "files"}


def _differences(where: str, before: Any, after: Any) -> list[dict[str, str]]:
    """Each leaf of two JSON values that differs, by its dotted name."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        prefix = f"{where}." if where else ""
        return [line for key in keys for line in _differences(prefix + key, before.get(key), after.get(key))]
    return [{"what": where, "before": _shown(before), "after": _shown(after)}]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _bytes(size: int | None) -> str:
    return "absent" if size is None else f"{size} bytes"


def _target(target: str | Path | Target) -> Target:
    from edgepack.target import Target, load_target

    return target if isinstance(target, Target) else load_target(target)


@contextlib.contextmanager
def _written(output: Path, *, dry_run: bool) -> Iterator[Path]:
    """Where to write: the output itself, or in a dry run a file of that name in a folder that goes away."""
    if not dry_run:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="edgepack-") as folder:
        yield Path(folder) / output.name
