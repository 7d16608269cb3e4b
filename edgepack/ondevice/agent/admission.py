"""What a pinned device takes, and what it runs: only what an allowed signer signed."""

from __future__ import annotations

import hashlib
import os
from typing import Any, Dict, Optional, Tuple

from .arguments import take, take_list, take_name
from .counters import require_newer
from .disk import confined, read_foreign, read_json
from .errors import AgentError, bad_request, pinned_error, unsigned_error
from .facts import RUNTIME_PACKAGES
from .limits import APP_PATTERN, DIGEST_PATTERN, MANIFEST_LIMIT, NAME_PATTERN, RELEASE_PATTERN, SIGNATURE
from .pin import Pin
from .releases import parse_manifest
from .session import Session

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
    data, content = manifest
    found = f"{content.get('version')}-{hashlib.sha256(data).hexdigest()[:12]}"
    if (content.get("name"), found) != (app, release):
        raise AgentError(
            "digest-mismatch", f"The manifest is not that of release {release} of {app}.", "Build the bundle again."
        )
    if signature is None:
        raise unsigned_error(release)
    pin.require_signer(data, signature, release)
    require_newer(session.home(), app, release, content.get("counter"), pin.floor)


def pinned_device(session: Session, manifest: Dict[str, Any], args: Dict[str, Any]) -> Dict[str, Any]:
    """The device.json of a pinned device: nothing of it leads anywhere but to what the manifest vouches for."""
    runtime = args.get("runtime")
    wheels = [] if runtime is None else take_list(take(args, "runtime", dict), "wheels")
    listed = {entry.get("path"): entry.get("sha256") for entry in take_list(manifest, "files")}
    lines = []
    for wheel in wheels:
        name, sha256 = take_name(wheel, "filename", NAME_PATTERN), take_name(wheel, "sha256", DIGEST_PATTERN)
        if listed.get(f"wheels/{name}") != sha256 or wheel.get("dist") != name.split("-")[0]:
            raise AgentError(
                "digest-mismatch", f"The signed manifest lists no wheel {name} such as this.", "Push again."
            )
        lines.append(f"{name} {sha256}\n")
    found = hashlib.sha256("".join(sorted(lines)).encode("ascii")).hexdigest()[:16] if lines else None
    if found != (None if runtime is None else runtime.get("id")):
        raise AgentError("digest-mismatch", "The runtime's id does not fit its wheels.", "Push again.")
    told = take(take(args, "device", dict), "runtime", dict)
    platform_told = take(take(args, "device", dict), "platform", dict)
    installed = told.get("installed")
    return {
        "pin": None if session.pin is None else session.pin.mark,
        "platform": {key: str(platform_told.get(key)) for key in ("python", "arch", "libc")},
        "runtime": {
            "package": told.get("package") if told.get("package") in RUNTIME_PACKAGES else None,
            "version": str(told.get("version")),
            "id": None if found is None else os.path.basename(session.runtime_folder(found)),
            "dists": [wheel["dist"] for wheel in wheels],
            "installed": [name for name in RUNTIME_PACKAGES if isinstance(installed, list) and name in installed],
        },
    }


def require_trusted(session: Session, folder: str, release: str) -> None:
    """On a pinned device, refuses to run what no allowed signer signed, or what was set up before, by whomever."""
    if session.pin is None:
        return
    try:
        signature = read_foreign(confined(folder, SIGNATURE), SIGNATURE_LIMIT)
        manifest = read_foreign(confined(folder, "manifest.json"), MANIFEST_LIMIT)
    except OSError:
        raise unsigned_error(release) from None
    session.pin.require_signer(manifest, signature, release)
    if read_json(confined(folder, "device.json")).get("pin") != session.pin.mark:
        raise AgentError(
            "pinned",
            f"Release {release} was set up here before this device was pinned: what it runs with may be anybody's.",
            "Push its bundle again; that sets it up anew.",
        )


def require_numbers(options: Dict[str, Any]) -> None:
    """Refuses options of a measurement that could name anything, such as a library to load."""
    for key, value in options.items():
        if value is not None and not isinstance(value, (bool, int, float)):
            raise pinned_error(
                f"This device is pinned: the option {str(key)[:50]!r} of a measurement has to be a number."
            )
