"""Verbs that bring files: missing and put."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import Any, Dict, List, Optional

from .admission import require_foreseen, signed_records
from .arguments import take, take_list, take_name, take_size
from .disk import confined, is_whole, make_folder, remove_tree, require_executable, require_space, size_of, sync_folder
from .errors import AgentError, bad_request
from .failpoints import reach
from .limits import CHUNK, DIGEST_PATTERN, NAME_PATTERN
from .releases import index_contents, parse_manifest
from .session import Session
from .weaving import tell_deltas
from .wheels import is_runtime_whole
from .wire import Payload, Request


def missing(session: Session, request: Request) -> Dict[str, Any]:
    """Which of these files are here already (all their bytes, some from an interrupted push, or none).

    A pinned device that is shown the manifest and its signature refuses here already what ``commit`` would refuse.
    """
    root = session.home()
    require_foreseen(session, request.args)
    contents = index_contents(root)
    have = {}
    for entry in take_list(request.args, "files"):
        sha256, size = take_name(entry, "sha256", DIGEST_PATTERN), take_size(entry, "bytes")
        found = find_content(session, root, contents, sha256, size)
        part = confined(root, "incoming", f"{sha256}.part")
        have[sha256] = size if found else min(size_of(part), max(size - 1, 0))
    runtime = request.args.get("runtime")
    present = False
    if isinstance(runtime, dict) and runtime.get("id") is not None:
        require_executable(root)
        present = is_runtime_present(session, request.args, runtime)
    return {"have": have, "runtime_present": present, "delta": tell_deltas(root, have)}


def is_runtime_present(session: Session, args: Dict[str, Any], runtime: Dict[str, Any]) -> bool:
    """Whether ``commit`` will take the unpacked runtime that is there; a pinned device has to see the manifest."""
    folder = session.runtime_folder(take_name(runtime, "id", NAME_PATTERN))
    if session.pin is None:
        return is_runtime_whole(folder)
    if args.get("manifest") is None:
        return False
    text: str = take(args, "manifest", str)
    return is_runtime_whole(folder, signed_records(parse_manifest(text.encode("utf-8", "replace")), runtime))


def put(session: Session, request: Request) -> Dict[str, Any]:
    """Stages one file under the name of its digest; the host may go on where an interrupted push stopped."""
    root = session.home()
    sha256 = take_name(request.args, "sha256", DIGEST_PATTERN)
    size, offset = take_size(request.args, "bytes"), take_size(request.args, "offset")
    if offset + request.payload.remaining > size:
        raise bad_request("The payload goes beyond the end of the file.")
    part, whole = confined(root, "incoming", f"{sha256}.part"), confined(root, "incoming", sha256)
    make_folder(os.path.dirname(part))
    if offset > size_of(part):
        raise bad_request(f"The file starts at {offset}, but only {size_of(part)} bytes of it are here.")
    require_space(part, request.payload.remaining)
    try:
        hasher = receive_part(session, request.payload, part, sha256, offset)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remove_tree(part)
        raise
    received = size_of(part)
    if received == size:
        if hasher.hexdigest() != sha256:
            remove_tree(part)
            raise AgentError("digest-mismatch", f"What arrived is not the file {sha256[:12]}…", "Push again.")
        reach("put:arrived")
        os.replace(part, whole)
        sync_folder(os.path.dirname(whole))
        reach("put:staged")
        info = os.lstat(whole)
        session.verified.add((sha256, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))
    return {"bytes": received}


def receive_part(session: Session, payload: Payload, part: str, sha256: str, offset: int) -> Any:
    """Writes a payload at an offset of a partial file, durably; returns the running digest of the whole file."""
    hashed, hasher = session.hashers.pop(sha256, (-1, None))
    with open(part, "r+b" if os.path.exists(part) else "w+b", buffering=0) as file:
        if hashed != offset:
            hasher = hashlib.sha256()
            for start in range(0, offset, CHUNK):
                hasher.update(file.read(min(CHUNK, offset - start)))
        file.truncate(offset)
        file.seek(offset)
        for chunk in iter(payload.read, b""):
            hasher.update(chunk)
            view = memoryview(chunk)
            while view:
                view = view[file.write(view) :]
            reach("put:writing")
        session.hashers[sha256] = (file.tell(), hasher)
        os.fsync(file.fileno())
    return hasher.copy()


def find_content(session: Session, root: str, contents: Dict[str, List[str]], sha256: str, size: int) -> Optional[str]:
    """The path of a verified file with this digest, staged or in a release."""
    for path in [confined(root, "incoming", sha256), *contents.get(sha256, [])]:
        with contextlib.suppress(OSError):
            info = os.lstat(path)
            seen = (sha256, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)
            if seen in session.verified or is_whole(path, size, sha256):
                session.verified.add(seen)
                return path
    return None
