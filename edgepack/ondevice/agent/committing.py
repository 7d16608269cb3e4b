"""The verb commit: a release made of staged files, verified and durable before it is in its place."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

from .admission import pinned_device, require_admissible, signed_records, take_signature
from .arguments import take, take_list, take_name, take_path, take_size
from .counters import note_counter
from .disk import (
    change_tree_mode,
    confined,
    digest_file,
    link_or_copy,
    make_folder,
    mend_tree,
    remove_tree,
    require_executable,
    require_space,
    size_of,
    sync_folder,
    sync_tree,
    write_atomically,
)
from .errors import AgentError
from .facts import now
from .failpoints import reach
from .limits import APP_PATTERN, DIGEST_PATTERN, MANIFEST_LIMIT, NAME_PATTERN, RELEASE_PATTERN, SCHEMA, SIGNATURE
from .lock import sweep_incoming
from .releases import (
    commit_time,
    find_damage,
    index_contents,
    manifest_files,
    parse_manifest,
    read_manifest,
    release_folder,
    setup_digest,
)
from .session import Session
from .staging import find_content
from .state import load_state, note_event, save_state
from .wheels import is_runtime_whole, remove_bytecode, unpack_wheel
from .wire import Request

DOOR = "edgepack_device.py"
DOOR_VERSION_PATTERN = re.compile(rb"^DOOR_VERSION\s*=\s*(\d+)", re.MULTILINE)


def commit(session: Session, request: Request) -> Dict[str, Any]:
    """Makes a release out of staged files, verified and durable, and sets it as the candidate."""
    root, args = session.home(), request.args
    app, release = take_name(args, "app", APP_PATTERN), take_name(args, "release", RELEASE_PATTERN)
    device: Dict[str, Any] = take(args, "device", dict)
    make_folder(confined(root, "apps", app, "releases"))
    state = load_state(root, app)
    done = session.replay(state, request)
    if done is not None:
        return done
    folder = release_folder(root, app, release)
    signature = take_signature(args)
    manifest = staged_manifest(session, folder, args)
    if session.pin is not None:
        require_admissible(session, session.pin, manifest, app, release, signature)
        device = pinned_device(session, manifest[1], args)
    note_counter(root, app, release, manifest[1].get("counter"), session.floor())
    reach("commit:counted")
    if args.get("runtime") is not None:
        runtime = take(args, "runtime", dict)
        install_runtime(session, runtime, None if session.pin is None else signed_records(manifest[1], runtime))
    already = os.path.isdir(folder) and not find_damage(folder, release)
    before = setup_digest(folder)
    committed_at = commit_time(root, app, release) or now()
    found = {"interpreter": sys.executable, "python": platform.python_version()}
    device = dict(device, schema=SCHEMA, committed_at=committed_at, **found)
    beside = {"device.json": json.dumps(device, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")}
    if signature:
        beside[SIGNATURE] = signature
    if already:
        rewrite_beside(session, folder, beside)
    else:
        place_release(session, root, folder, release, take_list(args, "files"), beside)
    if before != setup_digest(folder):
        state["verdicts"].pop(release, None)  # what it passed with is not what it would run with now
    install_door(root, folder)
    result = {"release": release, "already": already}
    state["candidate"] = release
    note_event(state, "push", session.holder, release=release, already=already)
    state["operations"][args["op"]] = {"result": result}
    save_state(root, app, state)
    reach("commit:noted")
    sweep_incoming(session, root, everything=True)
    reach("commit:swept")
    return result


def staged_manifest(session: Session, folder: str, args: Dict[str, Any]) -> Tuple[bytes, Dict[str, Any]]:
    """The bytes and the content of the manifest that is to be committed; nothing where it is not here."""
    for entry in take_list(args, "files"):
        if take_path(entry) == "manifest.json":
            sha256 = take_name(entry, "sha256", DIGEST_PATTERN)
            here = {sha256: [os.path.join(folder, "manifest.json")]}
            path = find_content(session, session.home(), here, sha256, take_size(entry, "bytes"))
            if path is not None:
                with open(path, "rb") as file:
                    data = file.read(MANIFEST_LIMIT + 1)
                return data, parse_manifest(data)
    return b"", {}


def place_release(
    session: Session, root: str, folder: str, release: str, files: List[Dict[str, Any]], beside: Dict[str, bytes]
) -> None:
    """Assembles a release in ``incoming/``, verifies it there and moves it into place (or mends a damaged one).

    ``beside`` holds what lies beside the release's own files: device.json, and the signature if there is one.
    """
    staged = confined(root, "incoming", f"release-{os.urandom(8).hex()}")
    contents = index_contents(root)
    if len({take_path(entry) for entry in files}) != len(files):
        raise AgentError("digest-mismatch", f"{release} names a file twice.", "Build the bundle again.")
    require_space(root, 0)
    make_folder(staged)
    try:
        for entry in files:
            path, sha256 = take_path(entry), take_name(entry, "sha256", DIGEST_PATTERN)
            found = find_content(session, root, contents, sha256, take_size(entry, "bytes"))
            if found is None:
                raise AgentError("digest-mismatch", f"{path} is not here, or not whole.", "Push again.", path=path)
            make_folder(os.path.dirname(confined(staged, path)))
            link_or_copy(found, confined(staged, path))
        require_manifest(staged, release, files)
        for name, data in beside.items():
            write_atomically(os.path.join(staged, name), data)
        sync_tree(staged)
        reach("commit:assembled")
        if os.path.isdir(folder):
            mend_tree(staged, folder)
        else:
            os.rename(staged, folder)
            sync_folder(os.path.dirname(folder))
        reach("commit:placed")
    finally:
        remove_tree(staged)
    change_tree_mode(folder, writable=False)
    reach("commit:sealed")


def rewrite_beside(session: Session, folder: str, beside: Dict[str, bytes]) -> None:
    """Notes for a release that is there already what was chosen on this device today, and who signed it."""
    for name, data in beside.items():
        path = os.path.join(folder, name)
        if size_of(path) != len(data) or digest_file(path) != hashlib.sha256(data).hexdigest():
            change_tree_mode(folder, writable=True)
            write_atomically(path, data)
    change_tree_mode(folder, writable=False)


def require_manifest(staged: str, release: str, files: List[Dict[str, Any]]) -> None:
    """Sees that a staged release is exactly what its manifest says, and its id what its manifest's digest says."""
    manifest, sha256 = read_manifest(staged)
    if not sha256 or not sha256.startswith(release[-12:]):
        raise AgentError(
            "digest-mismatch", f"The manifest is not that of release {release}.", "Build the bundle again."
        )
    expected = {path: digest for path, _, digest in manifest_files(manifest)}
    given = {entry["path"]: entry["sha256"] for entry in files if entry["path"] != "manifest.json"}
    if expected != given:
        odd = sorted(path for path in set(expected) | set(given) if expected.get(path) != given.get(path))
        found = f"The files do not match the manifest of {release}: {', '.join(odd[:5])}."
        raise AgentError("digest-mismatch", found, "Build the bundle again.")


def install_runtime(session: Session, runtime: Dict[str, Any], records: Optional[Mapping[str, str]]) -> None:
    """Unpacks a runtime's wheels, each into a folder of its own, unless the runtime is here and whole.

    ``records``, on a pinned device: the SHA-256 of each RECORD that was signed. What else lies there is put away whole.
    """
    root = session.home()
    runtime_id = take_name(runtime, "id", NAME_PATTERN)
    folder = session.runtime_folder(runtime_id)
    require_executable(folder)
    if is_runtime_whole(folder, records):
        if records is not None:
            remove_bytecode(folder)
        return
    make_folder(os.path.dirname(folder))
    staged = confined(root, "incoming", f"runtime-{os.urandom(8).hex()}")
    make_folder(staged)
    try:
        for wheel in take_list(runtime, "wheels"):
            name = take_name(wheel, "filename", NAME_PATTERN)
            sha256, size = take_name(wheel, "sha256", DIGEST_PATTERN), take_size(wheel, "bytes")
            archive = confined(root, "incoming", sha256)
            if find_content(session, root, {}, sha256, size) is None:
                raise AgentError("digest-mismatch", f"The wheel {name} is not here, or not whole.", "Push again.")
            dist = take_name(wheel, "dist", NAME_PATTERN)
            unpack_wheel(archive, name, confined(staged, dist), (records or {}).get(dist))
        # One sync for the thousand small files of a runtime: an fsync for each takes minutes on an SD card.
        os.sync()
        reach("runtime:unpacked")
        if records is not None:
            remove_tree(folder)  # mending would leave what nobody vouches for
        if os.path.isdir(folder):
            mend_tree(staged, folder)
        else:
            os.rename(staged, folder)
            sync_folder(os.path.dirname(folder))
        reach("runtime:placed")
    finally:
        remove_tree(staged)


def install_door(root: str, folder: str) -> None:
    """Keeps ``lib/edgepack_device.py`` at the newest version that any release brought; mends a changed one."""
    try:
        with open(os.path.join(folder, DOOR), "rb") as file:
            brought = file.read(MANIFEST_LIMIT)
    except FileNotFoundError:
        return
    path = confined(root, "lib", DOOR)
    try:
        with open(path, "rb") as file:
            there = file.read(MANIFEST_LIMIT)
    except FileNotFoundError:
        there = b""
    if brought != there and door_version(brought) >= door_version(there):
        make_folder(os.path.dirname(path))
        write_atomically(path, brought)


def door_version(source: bytes) -> int:
    """The ``DOOR_VERSION`` of an ``edgepack_device.py``; -1 where it names none."""
    found = DOOR_VERSION_PATTERN.search(source)
    return int(found.group(1)) if found else -1
