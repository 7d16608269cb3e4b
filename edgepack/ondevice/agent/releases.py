"""The releases on this device: where they lie, what they hold, and which one is active."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .arguments import parse_json, take_list, take_name, take_path, take_size
from .disk import confined, is_whole, list_names, read_json, sync_folder, walk_files
from .errors import AgentError, bad_request
from .limits import APP_PATTERN, DIGEST_PATTERN, MANIFEST_LIMIT, NAME_PATTERN, RELEASE_PATTERN
from .wheels import is_runtime_whole


def release_folder(root: str, app: str, release: str) -> str:
    """Where a release lies."""
    return confined(root, "apps", app, "releases", release)


def list_apps(root: str) -> List[str]:
    """The apps on this device."""
    return list_names(os.path.join(root, "apps"), APP_PATTERN)


def list_releases(root: str, app: str) -> List[str]:
    """The releases of an app that are committed on this device."""
    return list_names(os.path.join(root, "apps", app, "releases"), RELEASE_PATTERN)


def read_manifest(folder: str) -> Tuple[Dict[str, Any], str]:
    """A release's manifest and the SHA-256 of its bytes; an empty one where there is none that can be read."""
    try:
        with open(os.path.join(folder, "manifest.json"), "rb") as file:
            data = file.read(MANIFEST_LIMIT + 1)
    except OSError:
        return {}, ""
    manifest = parse_manifest(data)
    return manifest, hashlib.sha256(data).hexdigest() if manifest else ""


def parse_manifest(data: bytes) -> Dict[str, Any]:
    """The manifest of those bytes; empty where they are none."""
    try:
        value = parse_json(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def manifest_files(manifest: Dict[str, Any]) -> List[Tuple[str, int, str]]:
    """(path, bytes, SHA-256) of the files that a release holds on the device: all but the wheels."""
    files = []
    for entry in take_list(manifest, "files"):
        path, size, sha256 = take_path(entry), take_size(entry, "bytes"), take_name(entry, "sha256", DIGEST_PATTERN)
        if not path.startswith("wheels/") and path != "manifest.json":
            files.append((path, size, sha256))
    return files


def freed_bytes(folders: List[str]) -> int:
    """What removing these folders frees: a file that something else has a second name of (a hard link) stays."""
    names: Dict[Tuple[int, int], int] = {}
    freed = 0
    for folder in folders:
        for path in walk_files(folder):
            info = os.lstat(os.path.join(folder, path))
            inode = (info.st_dev, info.st_ino)
            names[inode] = names.get(inode, 0) + 1
            if names[inode] == info.st_nlink:
                freed += info.st_size
    return freed


def find_damage(folder: str, release: str) -> List[str]:
    """The files of a release that are not what its id vouches for; every digest is computed anew."""
    manifest, sha256 = read_manifest(folder)
    if not sha256.startswith(release[-12:]) or not sha256:
        return ["manifest.json"]
    return [
        path for path, size, digest in manifest_files(manifest) if not is_whole(confined(folder, path), size, digest)
    ]


def require_whole(root: str, app: str, release: str, records: Optional[Mapping[str, str]] = None) -> str:
    """The folder of a release whose digests, and whose runtime's, were all verified just now.

    ``records``: what a signature vouches for of its runtime (``is_runtime_whole``).
    """
    folder = require_release(root, app, release)
    damaged = find_damage(folder, release)
    runtime = runtime_of(folder)
    if not damaged and runtime and not is_runtime_whole(confined(root, "runtimes", runtime), records):
        damaged = [f"runtimes/{runtime}"]
    if damaged:
        raise AgentError(
            "release-damaged",
            f"Release {release} of {app} is damaged on this device: {', '.join(damaged[:5])}.",
            "Push its bundle again; that repairs it: edgepack push FILE.edgepack DEVICE.",
            damaged=damaged[:100],
        )
    return folder


def require_release(root: str, app: str, release: str) -> str:
    """The folder of a release that is here."""
    folder = release_folder(root, app, release)
    if not os.path.isdir(folder):
        raise no_release(root, app, release)
    return folder


def named_release(root: str, app: str, name: Any) -> str:
    """A release id that a person gave; a version without its digest is no release either, and the error lists those."""
    if not isinstance(name, str):
        raise bad_request("'release' has to be text.")
    if not RELEASE_PATTERN.fullmatch(name):
        raise no_release(root, app, name[:100])
    return name


def no_release(root: str, app: str, release: str) -> AgentError:
    """A release was named that is not here."""
    there = list_releases(root, app)
    meant = [found for found in there if found.startswith(release)]
    hint = "Name one that is there, or push its bundle first: edgepack push FILE.edgepack DEVICE."
    return AgentError(
        "no-release",
        f"{app} has no release {release} on this device (there: {', '.join(there) or 'none'}).",
        f"Did you mean {meant[0]}?" if len(meant) == 1 else hint,
    )


def runtime_of(folder: str) -> Optional[str]:
    """The id of the unpacked runtime that a release uses; None where it uses what the device has installed."""
    runtime = read_json(os.path.join(folder, "device.json")).get("runtime")
    found = runtime.get("id") if isinstance(runtime, dict) else None
    return found if isinstance(found, str) and NAME_PATTERN.fullmatch(found) else None


def setup_digest(folder: str) -> str:
    """What a release runs with on this device (``device.json``) as one digest, which its verdict is bound to.

    An interpreter counts as the same under another name in its folder (``python``, ``python3``); the environment that
    the folder belongs to, and the version, count.
    """
    device = read_json(os.path.join(folder, "device.json"))
    device.pop("committed_at", None)
    device.pop("reset", None)
    interpreter = str(device.get("interpreter") or "")
    device["interpreter"] = [os.path.realpath(interpreter), os.path.realpath(os.path.dirname(interpreter))]
    return hashlib.sha256(json.dumps(device, sort_keys=True).encode("ascii")).hexdigest()


def commit_time(root: str, app: str, release: str) -> str:
    """When a release was committed, for ordering."""
    return str(read_json(os.path.join(release_folder(root, app, release), "device.json")).get("committed_at") or "")


def index_contents(root: str) -> Dict[str, List[str]]:
    """Where the releases on this device hold which content: SHA-256 to paths (not verified)."""
    contents: Dict[str, List[str]] = {}
    for app in list_apps(root):
        for release in list_releases(root, app):
            folder = release_folder(root, app, release)
            manifest, sha256 = read_manifest(folder)
            with contextlib.suppress(AgentError):
                contents.setdefault(sha256, []).append(os.path.join(folder, "manifest.json"))
                for path, _, digest in manifest_files(manifest):
                    contents.setdefault(digest, []).append(confined(folder, path))
    return contents


def read_current(root: str, app: str) -> Optional[str]:
    """The active release: what the symlink names."""
    try:
        name = os.path.basename(os.readlink(os.path.join(root, "apps", app, "current")))
    except OSError:
        return None
    return name if RELEASE_PATTERN.fullmatch(name) else None


def point_current(root: str, app: str, release: Optional[str]) -> None:
    """Switches ``current`` to a release in one rename; None takes it away."""
    folder = confined(root, "apps", app)
    current = os.path.join(folder, "current")
    if release is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(current)
    else:
        temporary = f"{current}.new-{os.urandom(4).hex()}"
        os.symlink(os.path.join("releases", release), temporary)
        os.replace(temporary, current)
    sync_folder(folder)
