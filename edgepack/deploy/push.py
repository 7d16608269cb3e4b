"""Pushing a release: staged and verified on the device, made the candidate, activating nothing.

The order is a promise: whether the bundle is whole comes first, before anybody is called; then what the device is,
whether the bundle fits it, how much is missing, and only then the first byte. A release that is there already costs one
request after ``hello``, in which the device verifies it again; otherwise ``missing`` is asked, unless ``hello`` said
that nothing is there, and the files that lack and the ``commit`` go out without a wait in between. Where the device
holds other releases, one request more asks which chunks of the model lack (``delta.py``).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.bundle import Bundle, open_bundle
from edgepack.bundle.signature import check_signature
from edgepack.deploy.delta import ask_delta, read_batches, send_batch, staged_bytes
from edgepack.deploy.staging import Piece, Staging, plan_staging
from edgepack.device.opened import opened
from edgepack.documents import ByteCount, PushDocument, SignatureInfo
from edgepack.errors import DeviceFailure, InputError, IntegrityError, MisfitError
from edgepack.events import Event, Reporter, ignore_events
from edgepack.words import size

if TYPE_CHECKING:
    from edgepack.device import ConnectOptions, DeviceAddress, Session

STEP = "push"
CHUNK_BYTES = 1 << 20


def push(
    bundle: str | Path,
    device: str | DeviceAddress | Session,
    *,
    app: str | None = None,
    allowed_signers: str | Path | None = None,
    options: ConnectOptions | None = None,
    dry_run: bool = False,
    report: Reporter = ignore_events,
) -> PushDocument:
    """Bring a bundle's release to a device and make it the candidate.

    ``app`` is what the bundle has to be for; the bundle knows its app itself, so it may be left out. With
    ``allowed_signers`` (as :func:`edgepack.verify` takes them) it has to be signed by one of them.

    Every digest of the bundle is recomputed before the device is called: of a damaged one, nothing reaches it. Only
    files that the device lacks travel, of a model the chunks that none of its releases holds; each goes on where an
    interrupted push stopped, and the device verifies every digest. ``bytes.sent`` counts the bytes of files that went
    over the wire (with ``dry_run``: that would). A session that is handed in has to hold the device's lock.

    Raises InputError or IntegrityError about the bundle, MisfitError before a byte of it moves, and whatever the way to
    the device and its disk can do: UnreachableError, LockedError, DeviceFailure.
    """
    started = time.monotonic()
    content = verified_bundle(bundle, app=app, allowed_signers=allowed_signers, report=report)
    with opened(device, options, app=content.bundle.manifest.name, lock=not dry_run, report=report) as session:
        document = push_verified(content, session, dry_run=dry_run, report=report)
    return dataclasses.replace(document, seconds=round(time.monotonic() - started, 3))


@dataclasses.dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle whose every digest was recomputed, and who signed it (None: nobody, and nobody had to)."""

    bundle: Bundle
    signature: SignatureInfo | None


def verified_bundle(
    path: str | Path,
    *,
    app: str | None = None,
    allowed_signers: str | Path | None = None,
    report: Reporter = ignore_events,
) -> VerifiedBundle:
    """The bundle in that file, verified: for ``app`` where one is named, by an allowed signer where there are such."""
    content = open_bundle(Path(path))
    if app is not None and app != content.manifest.name:
        raise InputError(
            "usage",
            f"{path} is a bundle of the app {content.manifest.name}, not of {app}.",
            hint=f"Name {content.manifest.name} or none, or take another file.",
        )
    _require_deployable(content)
    report(Event(STEP, f"verifying {content.path.name}"))
    signers = None if allowed_signers is None else Path(allowed_signers)
    signature = check_signature(content.manifest_bytes, content.signature, signers, str(path))
    content.verify()
    return VerifiedBundle(content, signature)


def push_verified(
    verified: VerifiedBundle, session: Session, *, dry_run: bool = False, report: Reporter = ignore_events
) -> PushDocument:
    """As :func:`push`, of what :func:`verified_bundle` gave, in a session that is open: a fleet verifies once."""
    started = time.monotonic()
    content = verified.bundle
    tally = _Tally(report)
    op = secrets.token_hex(8)

    def staged() -> PushDocument:
        _require_admissible(session, content)
        staging = dataclasses.replace(plan_staging(content, session.facts), op=op)
        report(Event(STEP, f"{content.manifest.name} {content.release} fits {session.description} ({staging.fit})"))
        already = _commit_again(session, staging) if _is_there(session, staging) and not dry_run else False
        if not already:
            if session.hello.get("pinned"):
                staging = dataclasses.replace(staging, shown=content.manifest_bytes.decode())
            _send_missing(session, content, staging, tally, dry_run=dry_run)
        nothing = tally.wire_bytes == 0
        return PushDocument(
            app=staging.app,
            release=staging.release,
            device=session.description,
            bytes=ByteCount(
                total=staging.bytes, sent=tally.wire_bytes, reused=max(staging.bytes - tally.file_bytes, 0)
            ),
            round_trips=session.round_trips,
            seconds=round(time.monotonic() - started, 3),
            already_present=nothing and (already or (dry_run and _is_there(session, staging))),
            signature=verified.signature,
        )

    try:
        return session.persist(staged)
    except IntegrityError:
        if not tally.resumed_bytes:
            raise
        report(Event(STEP, "what an interrupted push left there is damaged: sending it again"))
        return session.persist(staged)


def _require_admissible(session: Session, content: Bundle) -> None:
    """Say what no pinned device takes. Whose signature it takes, and which counter, it says to ``missing``."""
    if not session.hello.get("pinned"):
        return
    lacks, code = "", ""
    if content.signature is None:
        lacks, code = "signature", "unsigned"
    elif content.manifest.counter is None:
        lacks, code = "counter", "replayed"
    if lacks:
        raise IntegrityError(
            code,
            f"{session.description} is pinned to its signers, and {content.path} has no {lacks}.",
            hint="Make it again with `edgepack bundle ... --sign KEY --counter N`, N higher than before.",
        )


def _require_deployable(content: Bundle) -> None:
    target = content.manifest.target
    if target.get("deployable") is False:
        raise MisfitError(
            "not-deployable",
            f"The target {target.get('name')} is not reached over SSH: its bundle can be built, not pushed.",
            hint="Take the model out of the bundle (a .edgepack file is a ZIP) and use the platform's own way.",
        )


def _is_there(session: Session, staging: Staging) -> bool:
    app = (session.hello.get("apps") or {}).get(staging.app) or {}
    return any(found.get("release") == staging.release for found in app.get("releases") or ())


def _commit_again(session: Session, staging: Staging) -> bool:
    """Let the device verify a release that it holds, and make it the candidate; False where it is damaged."""
    try:
        session.request("commit", **staging.commit_arguments())
    except IntegrityError:
        return False
    return True


def _send_missing(
    session: Session, content: Bundle, staging: Staging, tally: _Tally, *, dry_run: bool, whole: bool = False
) -> None:
    """Send what the device lacks and commit; with ``whole``, no model in chunks. With ``dry_run`` it is counted."""
    # What hello said of an empty root is true until something is sent, also for who pushes in this session next.
    empty = session.hello.pop("empty", False) is True
    answer = {} if empty else session.request("missing", **staging.missing_arguments()).result
    lacking = staging.lacking(answer.get("have") or {}, runtime_present=answer.get("runtime_present") is True)
    _require_space(session, sum(piece.bytes - piece.offset for piece in lacking) - staged_bytes(answer))
    _tell_what_is_there(staging, lacking, tally)
    delta = None if whole else ask_delta(session, content, lacking, answer, dry_run=dry_run, report=tally.report)
    pieces = [piece for piece in lacking if delta is None or not delta.brings(piece)]
    put = sum(piece.bytes - piece.offset for piece in pieces)
    if delta is not None:
        there = f"{size(delta.model.bytes - delta.bytes)} of the model's {size(delta.model.bytes)} are there"
        tally.report(Event(STEP, there))
        tally.count(delta.recipe_bytes, delta.asked_bytes)
    if dry_run:
        tally.count(put, put)
        for batch in read_batches(content, delta) if delta else ():
            tally.count(batch.bytes, len(batch.payload))
        return
    tally.begin(put + (delta.bytes if delta else 0))
    waiting: list[int] = []
    try:
        waiting += [_send(session, content, piece, tally) for piece in pieces]
        if delta is not None:
            for batch in read_batches(content, delta):
                waiting.append(send_batch(session, delta, batch))
                tally.add(batch.bytes, len(batch.payload))
        waiting.append(session.send("commit", **staging.commit_arguments()))
        tally.report(Event(STEP, "the device verifies and unpacks"))
        while waiting:
            session.receive(waiting.pop(0))
    except IntegrityError:
        # The device got other bytes than were verified here. If the bundle changed meanwhile, say so.
        content.verify()
        if delta is None:
            raise
        while waiting:
            with contextlib.suppress(IntegrityError):
                session.receive(waiting.pop(0))
        tally.report(Event(STEP, "the chunks do not make the model: sending it whole"))
        _send_missing(session, content, staging, tally, dry_run=dry_run, whole=True)


def _tell_what_is_there(staging: Staging, lacking: Sequence[Piece], tally: _Tally) -> None:
    """Say how much need not be sent, and how much of it an interrupted push left."""
    there = staging.bytes - sum(piece.bytes - piece.offset for piece in lacking)
    tally.resumed_bytes = sum(piece.offset for piece in lacking)
    if there:
        left = f", {size(tally.resumed_bytes)} of it from an interrupted push" if tally.resumed_bytes else ""
        tally.report(Event(STEP, f"{size(there)} of {size(staging.bytes)} are on the device already{left}"))


def _send(session: Session, content: Bundle, piece: Piece, tally: _Tally) -> int:
    rest = piece.bytes - piece.offset
    return session.send(
        "put", _chunks(content, piece, tally), rest, sha256=piece.sha256, bytes=piece.bytes, offset=piece.offset
    )


def _chunks(content: Bundle, piece: Piece, tally: _Tally) -> Iterator[bytes]:
    """The piece's bytes from its offset on, a MiB at a time: memory stays flat."""
    with content.open_entry(piece.path) as stream:
        left = piece.offset
        while left and (skipped := stream.read(min(CHUNK_BYTES, left))):
            left -= len(skipped)
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
            tally.add(len(chunk), len(chunk))


def _require_space(session: Session, needed: int) -> None:
    free = session.facts.disk_free_bytes
    if free is not None and needed > free:
        raise DeviceFailure(
            "disk-full",
            f"{session.description} has {free:,} bytes free; this push needs {needed:,}.",
            hint="Free some space on the device, or name a folder on another disk with --root.",
            free_bytes=free,
            needed_bytes=needed,
        )


class _Tally:
    """What one push sent, with all its tries: one that broke off has sent something too. Tells the progress of each.

    ``file_bytes`` are bytes of files, ``wire_bytes`` what they were on the wire; ``resumed_bytes`` those that an
    interrupted push had left for the last try.
    """

    def __init__(self, report: Reporter) -> None:
        self.report = report
        self.resumed_bytes = 0
        self.file_bytes = 0
        self.wire_bytes = 0
        self._done = 0
        self._total = 0

    def begin(self, total: int) -> None:
        """A try begins, which has that many bytes to send."""
        self._done, self._total = 0, total

    def add(self, count: int, on_the_wire: int) -> None:
        """``count`` more bytes of files went out."""
        self.count(count, on_the_wire)
        self._done += count
        self.report(Event(STEP, "sending", self._done, self._total, "bytes"))

    def count(self, count: int, on_the_wire: int) -> None:
        """As :meth:`add`, of what nobody watches."""
        self.file_bytes += count
        self.wire_bytes += on_the_wire
