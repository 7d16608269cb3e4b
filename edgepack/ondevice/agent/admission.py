"""What a pinned device takes, and what it runs: only what an allowed signer signed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

from .arguments import take, take_list, take_name
from .counters import read_counter, require_newer, reset_mark
from .disk import confined, read_foreign, read_json
from .errors import AgentError, bad_request, pinned_error, unsigned_error
from .facts import RUNTIME_PACKAGES
from .limits import APP_PATTERN, DIGEST_PATTERN, MANIFEST_LIMIT, NAME_PATTERN, RELEASE_PATTERN, SIGNATURE
from .pin import Pin
from .releases import list_releases, parse_manifest, release_folder, require_release, require_whole, runtime_of
from .session import Session
from .wheels import remove_bytecode

SIGNATURE_LIMIT = 64 * 1024


def take_signature(args: Dict[str, Any]) -> Optional[bytes]:
    """The text of the signature that came with a commit, if one did."""
    if args.get("signature") is None:
        return None
    text = str(take(args, "signature", str))
    if len(text) > SIGNATURE_LIMIT or not text.isascii():
        raise bad_request("The signature is not one.")
    return text.encode("ascii")


def require_foreseen(session: Session, args: Dict[str, Any]) -> None:
    """Refuses before a byte of a release moves what ``commit`` would refuse, where the host shows its manifest."""
    if session.pin is None or args.get("manifest") is None:
        return
    app, release = take_name(args, "app", APP_PATTERN), take_name(args, "release", RELEASE_PATTERN)
    text: str = take(args, "manifest", str)
    if len(text) > MANIFEST_LIMIT:
        raise bad_request("The manifest is larger than 1 MiB.")
    data = text.encode("utf-8", "replace")
    require_admissible(session, session.pin, (data, parse_manifest(data)), app, release, take_signature(args))


def require_admissible(
    session: Session,
    pin: Pin,
    manifest: Tuple[bytes, Dict[str, Any]],
    app: str,
    release: str,
    signature: Optional[bytes],
) -> None:
    """Refuses a release that no allowed signer signed for this app, or that is not newer than all before."""
    require_signed(pin, manifest, app, release, signature)
    require_newer(session.home(), app, release, manifest[1].get("counter"), standing_floor(session.home(), pin, app))


def require_signed(
    pin: Pin, manifest: Tuple[bytes, Dict[str, Any]], app: str, release: str, signature: Optional[bytes]
) -> None:
    """Refuses a release that no allowed signer signed for this app."""
    data, content = manifest
    found = f"{content.get('version')}-{hashlib.sha256(data).hexdigest()[:12]}"
    if (content.get("name"), found) != (app, release):
        raise AgentError(
            "digest-mismatch", f"The manifest is not that of release {release} of {app}.", "Build the bundle again."
        )
    if signature is None:
        raise unsigned_error(release)
    pin.require_signer(data, signature, release)


def standing_floor(root: str, pin: Pin, app: str) -> Dict[str, Any]:
    """The pin's floor, raised to the newest of an app's releases here that are signed and were set up under the pin.

    So what is installed counts also where ``counters.json`` is gone. Signatures are judged only of what is above it.
    Where the owner set the counter back, only releases count that came after that: their device.json has its mark.
    """
    highest, mark = read_counter(root, app, pin.floor)[0], reset_mark(pin.floor, app)
    above = []
    for release in list_releases(root, app):
        folder = release_folder(root, app, release)
        device = read_json(confined(folder, "device.json"))
        with contextlib.suppress(OSError):
            data = read_foreign(confined(folder, "manifest.json"), MANIFEST_LIMIT)
            counter = parse_manifest(data).get("counter")
            if (
                not isinstance(counter, int)
                or isinstance(counter, bool)
                or (highest is not None and counter <= highest)
            ):
                continue
            if (device.get("pin"), device.get("reset")) == (pin.mark, mark):
                above.append((counter, release, data, read_foreign(confined(folder, SIGNATURE), SIGNATURE_LIMIT)))
    for counter, release, data, signature in sorted(above, reverse=True):
        try:
            require_signed(pin, (data, parse_manifest(data)), app, release, signature)
        except AgentError as error:
            if error.code == "pin-broken":
                raise
            continue
        return {**pin.floor, app: {**pin.floor.get(app, {}), "counter": counter, "release": release}}
    return pin.floor


def pinned_device(session: Session, manifest: Dict[str, Any], args: Dict[str, Any]) -> Dict[str, Any]:
    """The device.json of a pinned device: nothing of it leads anywhere but to what the manifest vouches for."""
    runtime = args.get("runtime")
    wheels = [] if runtime is None else take_list(take(args, "runtime", dict), "wheels")
    records = {} if runtime is None else signed_records(manifest, runtime)
    told = take(take(args, "device", dict), "runtime", dict)
    platform_told = take(take(args, "device", dict), "platform", dict)
    installed = told.get("installed")
    return {
        "pin": None if session.pin is None else session.pin.mark,
        "reset": reset_mark(session.floor(), str(manifest.get("name"))),
        "platform": {key: str(platform_told.get(key)) for key in ("python", "arch", "libc")},
        "runtime": {
            "package": told.get("package") if told.get("package") in RUNTIME_PACKAGES else None,
            "version": str(told.get("version")),
            "id": None if runtime is None else os.path.basename(session.runtime_folder(runtime["id"])),
            "dists": list(records),
            "wheels": [wheel["filename"] for wheel in wheels],
            "installed": [name for name in RUNTIME_PACKAGES if isinstance(installed, list) and name in installed],
        },
    }


def signed_records(manifest: Dict[str, Any], runtime: Dict[str, Any]) -> Dict[str, str]:
    """Distribution to the SHA-256 of its wheel's RECORD, as a signed manifest names it, for a runtime's wheels.

    Refuses wheels that the manifest does not list, or whose RECORD it does not name, and an id that is not theirs.
    """
    listed = {entry.get("path"): entry.get("sha256") for entry in take_list(manifest, "files")}
    named = manifest.get("records")
    lines, records = [], {}
    wheels = take_list(runtime, "wheels")
    for wheel in wheels:
        name, sha256 = take_name(wheel, "filename", NAME_PATTERN), take_name(wheel, "sha256", DIGEST_PATTERN)
        dist = name.split("-")[0]
        if listed.get(f"wheels/{name}") != sha256 or wheel.get("dist") != dist or dist in records:
            raise AgentError(
                "digest-mismatch", f"The signed manifest lists no wheel {name} such as this.", "Push again."
            )
        record = named.get(f"wheels/{name}") if isinstance(named, dict) else None
        if not isinstance(record, str) or not DIGEST_PATTERN.fullmatch(record):
            raise AgentError(
                "pinned",
                f"This device is pinned, and the signed manifest does not name the RECORD of the wheel {name}.",
                "Make the bundle again with this edgepack, and sign it: edgepack bundle ... --sign KEY --counter N.",
            )
        lines.append(f"{name} {sha256}\n")
        records[dist] = record
    found = hashlib.sha256("".join(sorted(lines)).encode("ascii")).hexdigest()[:16] if lines else None
    if found is None or found != runtime.get("id"):
        raise AgentError("digest-mismatch", "The runtime's id does not fit its wheels.", "Push again.")
    return records


def require_runnable(session: Session, app: str, release: str) -> str:
    """The folder of a release that is whole, and on a pinned device signed, set up under the pin, with its runtime."""
    root = session.home()
    folder = require_release(root, app, release)
    if session.pin is None:
        return require_whole(root, app, release)
    require_whole(root, app, release, require_trusted(session, session.pin, folder, release))
    runtime = runtime_of(folder)
    if runtime is not None:
        remove_bytecode(confined(root, "runtimes", runtime))
    return folder


def require_trusted(session: Session, pin: Pin, folder: str, release: str) -> Dict[str, str]:
    """Refuses to run what no allowed signer signed, or what was set up before, by whomever.

    Returns what the signed manifest names of the runtime's RECORDs: ``device.json`` lies within the account's reach.
    """
    try:
        signature = read_foreign(confined(folder, SIGNATURE), SIGNATURE_LIMIT)
        manifest = read_foreign(confined(folder, "manifest.json"), MANIFEST_LIMIT)
    except OSError:
        raise unsigned_error(release) from None
    pin.require_signer(manifest, signature, release)
    device = read_json(confined(folder, "device.json"))
    records = set_up_records(session, parse_manifest(manifest), device)
    if device.get("pin") != pin.mark or device.get("interpreter") != sys.executable or records is None:
        raise AgentError(
            "pinned",
            f"Release {release} was not set up here by what this device is pinned to: what it runs with may be "
            "anybody's.",
            "Push its bundle again; that sets it up anew.",
        )
    return records


def set_up_records(session: Session, manifest: Dict[str, Any], device: Dict[str, Any]) -> Optional[Dict[str, str]]:
    """The signed RECORDs of the runtime in a device.json; None where that is not one that this agent writes."""
    runtime = device.get("runtime")
    names = runtime.get("wheels") if isinstance(runtime, dict) else None
    if not isinstance(runtime, dict) or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return None
    if runtime.get("package") not in (None, *RUNTIME_PACKAGES):
        return None
    if not names:
        return {} if runtime.get("id") is None and runtime.get("dists") == [] else None
    files: List[Dict[str, Any]] = take_list(manifest, "files")
    digests = {entry.get("path"): entry.get("sha256") for entry in files}
    wheels = [{"filename": n, "sha256": digests.get(f"wheels/{n}"), "dist": n.split("-")[0]} for n in names]
    found, _, mark = str(runtime.get("id")).rpartition("-")
    if not found or f"{found}-{mark}" != os.path.basename(session.runtime_folder(found)):
        return None
    try:
        records = signed_records(manifest, {"id": found, "wheels": wheels})
    except AgentError:
        return None
    return records if runtime.get("dists") == list(records) else None


def require_numbers(options: Dict[str, Any]) -> None:
    """Refuses options of a measurement that could name anything, such as a library to load."""
    for key, value in options.items():
        if value is not None and not isinstance(value, (bool, int, float)):
            raise pinned_error(
                f"This device is pinned: the option {str(key)[:50]!r} of a measurement has to be a number."
            )
