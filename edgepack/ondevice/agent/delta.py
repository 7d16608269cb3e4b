"""Verbs that bring a model in chunks: delta tells which of them this device lacks, chunks brings those."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import zlib
from typing import Any, BinaryIO, Dict, Iterable, Iterator, Tuple

from .arguments import take, take_name, take_size
from .disk import confined, digest_file, make_folder, remove_tree, require_space, sync_folder, write_atomically
from .errors import AgentError, bad_request
from .failpoints import reach
from .limits import CHUNK, DIGEST_PATTERN
from .releases import index_contents
from .session import Session
from .staging import find_content
from .weaving import RECIPE_LIMIT, Weave, allocated_bytes, gather_all, parse_recipe, woven_path
from .wire import Payload, Request


def delta(session: Session, request: Request) -> Tuple[Dict[str, Any], int, Iterable[bytes]]:
    """Puts a file together from what is here; the payload of the answer tells the chunks that lack, a bit for each.

    Where nothing lacks, the file is staged as if it had been put. With ``dry_run`` nothing is written.
    """
    root, args = session.home(), request.args
    sha256, size = take_name(args, "sha256", DIGEST_PATTERN), take_size(args, "bytes")
    weave = Weave(sha256, size, parse_recipe(take_recipe(session, request)))
    path = woven_path(root, sha256)
    session.weave = None
    if request.dry_run:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            weave.keep(file)
        gather_all(weave, root)
    else:
        make_folder(os.path.dirname(path))
        require_space(path, max(size - allocated_bytes(path), 0))
        with growing(weave, path) as file:
            if allocated_bytes(path):
                weave.keep(file)
            os.ftruncate(file.fileno(), size)
            gather_all(weave, root)
            reach("delta:gathered")
        session.weave = weave
    bits = weave.expect()
    finish(session, request)
    return {"chunks": len(weave.chunks)}, len(bits), [bits]


def chunks(session: Session, request: Request) -> Dict[str, Any]:
    """Takes the next of the chunks that lack; the last one makes the file whole, which its SHA-256 decides."""
    weave = session.weave
    if weave is None or weave.sha256 != request.args.get("sha256"):
        raise bad_request("Chunks came before their delta.")
    size = take_size(request.args, "bytes")
    with growing(weave, woven_path(session.home(), weave.sha256)):
        weave.receive(read_raw(request.payload, size, deflated=request.args.get("zlib") is True))
    finish(session, request)
    return {"left": len(weave.expected)}


@contextlib.contextmanager
def growing(weave: Weave, path: str) -> Iterator[BinaryIO]:
    """The file that grows, open; on a full disk it goes, so that the device can breathe."""
    try:
        with open(path, "r+b" if os.path.exists(path) else "w+b") as file:
            weave.file = file
            yield file
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remove_tree(path)
        raise
    finally:
        weave.file = None


def finish(session: Session, request: Request) -> None:
    """Stages the file under its digest once no chunk lacks; one that is not what it should be goes."""
    weave = session.weave
    if weave is None or weave.wanted:
        return
    session.weave = None
    path, whole = woven_path(session.home(), weave.sha256), confined(session.home(), "incoming", weave.sha256)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    reach("delta:woven")
    if digest_file(path) != weave.sha256:
        remove_tree(path)
        raise AgentError(
            "digest-mismatch", f"The chunks do not make the file {weave.sha256[:12]}…", "Push again.", verb=request.verb
        )
    os.replace(path, whole)
    sync_folder(os.path.dirname(whole))
    reach("delta:staged")
    info = os.lstat(whole)
    session.verified.add((weave.sha256, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns))


def take_recipe(session: Session, request: Request) -> bytes:
    """The recipe that came as the payload, or that is here already; unless all is only asked, it is staged."""
    root, told = session.home(), take(request.args, "recipe", dict)
    sha256, size = take_name(told, "sha256", DIGEST_PATTERN), take_size(told, "bytes")
    if size > RECIPE_LIMIT:
        raise bad_request("A recipe is larger than 4 MiB.")
    if not request.payload.remaining:
        path = find_content(session, root, index_contents(root), sha256, size)
        if path is None:
            raise AgentError("digest-mismatch", "The recipe is not here, or not whole.", "Push again.")
        with open(path, "rb") as file:
            return file.read(size)
    content = b"".join(read_raw(request.payload, size, deflated=request.args.get("zlib") is True))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise AgentError("digest-mismatch", f"What arrived is not the file {sha256[:12]}…", "Push again.")
    if not request.dry_run:
        path = confined(root, "incoming", sha256)
        make_folder(os.path.dirname(path))
        require_space(path, size)
        write_atomically(path, content)
        reach("delta:recipe")
    return content


def read_raw(payload: Payload, size: int, *, deflated: bool) -> Iterator[bytes]:
    """The bytes of a payload, exactly ``size``; of a deflated one never more than 1 MiB at a time are in memory."""
    left = size
    for data in inflate(payload) if deflated else iter(payload.read, b""):
        left -= len(data)
        if left < 0:
            break
        yield data
    if left:
        raise bad_request("The payload does not hold as many bytes as it says.")


def inflate(payload: Payload) -> Iterator[bytes]:
    """What was deflated (zlib), in pieces of at most 1 MiB."""
    engine = zlib.decompressobj()
    try:
        for piece in iter(payload.read, b""):
            while piece and not engine.eof:
                yield engine.decompress(piece, CHUNK)
                piece = engine.unconsumed_tail
            if engine.unused_data:
                break
        while not engine.eof:
            data = engine.decompress(b"", CHUNK)
            if not data:
                break
            yield data
    except zlib.error:
        raise bad_request("The payload is not deflated, though it says so.") from None
    if not engine.eof or engine.unused_data or payload.remaining:
        raise bad_request("The deflated payload does not end where it should.")
