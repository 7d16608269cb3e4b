"""A bundle by the names and paths that people give: the verbs bundle, inspect and verify, and the comparison of two."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.arguments import as_path, as_target, written
from edgepack.bundledocuments import BundleDocument, VerifyDocument
from edgepack.digest import BackgroundDigest
from edgepack.errors import InputError
from edgepack.events import Event, Reporter, ignore_events

if TYPE_CHECKING:
    from edgepack.target import Platform, Target
    from edgepack.target.solver import RuntimeOption


def bundle(
    model: str | Path,
    *,
    target: str | Path | Target,
    name: str,
    version: str,
    output: str | Path,
    platforms: Sequence[Platform | str] | None = None,
    with_runtime: bool = True,
    wheels: str | Path | None = None,
    extra_indexes: Sequence[str] = (),
    sign: str | Path | None = None,
    counter: int | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> BundleDocument:
    """Pack a .tflite, the check set beside it, the loader and the runtime's wheels into one reproducible file.

    ``target`` is a profile's name, file or value; ``platforms`` bundles for those instead of the target's: values, or
    texts as ``--platform`` takes them ("3.9,aarch64,glibc-2.31"; "3.11" picks from the target's). Each gets the
    profile's runtime, or the other one where that has no wheel or lacks an operator of the model. ``wheels`` is a
    folder that all wheels are taken from, also ones that edgepack does not know, instead of an index and the cache;
    without ``with_runtime`` there are none, and the device has to have its runtime. ``extra_indexes`` are addresses of
    package indexes that pip asks for the locked wheels beside the one that it is set up for.

    ``sign`` is an SSH key's file: the private one, or a public one whose private half is in ssh-agent. The signature
    covers the manifest and lies outside of the release id. ``counter`` orders the releases for devices that are pinned;
    it stands in the manifest, so another counter makes another release id.

    With ``dry_run`` the bundle is made in a temporary folder and thrown away, so that the document tells what would be
    there.

    Raises InputError about the model, the target, the names, the wheels and the key, MisfitError where no runtime fits
    a platform, and "conformance" where the target cannot run the model, IntegrityError "wheel-digest" where a wheel is
    not the locked one.
    """
    from edgepack.bundle.build import build_bundle, bundle_options, check_bundle_output
    from edgepack.bundle.download import require_fetching
    from edgepack.target.select import select_platforms

    model, output = as_path("model", model), as_path("output", output)
    folder = None if wheels is None else as_path("wheels", wheels)
    check_bundle_output(output, model)
    require_fetching(extra_indexes, wheels=folder, with_runtime=with_runtime)
    chosen = as_target(target)
    meant = chosen.platforms if platforms is None else select_platforms(chosen, platforms)
    options = bundle_options(chosen, meant, wheels=folder, with_runtime=with_runtime)
    runtimes = _hold_against(model, chosen, options, report)
    for one in runtimes:
        if with_runtime and not one.wheels:
            report(
                Event("bundle", f"note: {one.package} has no wheel for {one.platform.label}: the device has its own")
            )
    with written([output], dry_run=dry_run) as (place,):
        document = build_bundle(
            model,
            target=chosen,
            name=name,
            version=version,
            output=place,
            runtimes=runtimes,
            with_runtime=with_runtime,
            wheels=folder,
            extra_indexes=extra_indexes,
            counter=counter,
            sign_key=None if sign is None else as_path("sign", sign),
            report=report,
        )
    return dataclasses.replace(document, path=str(output))


def _hold_against(
    model: Path, target: Target, options: Sequence[Sequence[RuntimeOption]], report: Reporter
) -> list[RuntimeOption]:
    """The runtime for each platform. Refuse a .tflite that the target cannot run; tell what is worth a note.

    What is no .tflite is told when it is bundled.
    """
    from edgepack.bundle.build import observed_scheme
    from edgepack.quantize.conformance import check_fit, delegate_customs, fit_runtimes, refuse_misfit
    from edgepack.quantize.given import given_notes
    from edgepack.tflite import read_model

    try:
        described = read_model(model)
    except InputError:
        return [ordered[0] for ordered in options]
    fit = check_fit(described, target, options)
    refuse_misfit(fit, target)
    for found in (*given_notes(described, target, observed_scheme(described.tensors)), *fit.findings):
        report(Event("bundle", f"note: {found.message}" + (f" {found.cure}" if found.code == "not-compiled" else "")))
    return fit_runtimes(described, target, options, delegate_customs(described, target))


def inspect(path: str | Path) -> BundleDocument:
    """What a bundle holds. Raises InputError where it is none, IntegrityError where it was cut or changed."""
    place = as_path("path", path)
    with BackgroundDigest(place) as digest:  # hashing a large one takes as long as the import
        from edgepack.bundle import explain, open_bundle

        bundle = open_bundle(place)
        return explain(bundle, digest.result())


def verify(
    path: str | Path, *, allowed_signers: str | Path | None = None, report: Reporter = ignore_events
) -> VerifyDocument:
    """Recompute every digest of a bundle and check its signature.

    With ``allowed_signers``, a file as ``ssh-keygen -Y verify`` reads it, the bundle has to be signed by one of them;
    without it, a signature has to be one of this content. Raises as :func:`inspect`, and IntegrityError
    "digest-mismatch", "bad-signature", "unsigned", "foreign-signature", "signer-expired" or "wrong-namespace".
    """
    from edgepack.bundle import verify_bundle

    signers = None if allowed_signers is None else as_path("allowed_signers", allowed_signers)
    return verify_bundle(as_path("path", path), report, allowed_signers=signers)


def diff_bundles(before: str | Path, after: str | Path) -> dict[str, Any]:
    """What changed from one bundle to another: ``changes`` has a line for each field and file that differs.

    ``model`` says what changed inside of it: inputs, outputs, operators with their options, tensors with their types,
    shapes, scales and values (None where the model is the same).
    Raises as :func:`verify` for each of them: what is damaged is not compared.
    """
    from edgepack.bundle import diff_bundles as compare
    from edgepack.bundle import diff_models, open_bundle
    from edgepack.bundle.differences import changes_between

    old, new = open_bundle(Path(before)), open_bundle(Path(after))
    for one in (old, new):
        one.verify()
    found = compare(old, new)
    return {"schema": 1, **found, "changes": changes_between(old, new, found), "model": diff_models(old, new)}
