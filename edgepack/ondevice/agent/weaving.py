"""A model put together from chunks: what the releases on this device hold of it, and what the host sends.

It grows in a file of its full size. A chunk is there when the bytes at its place have its digest, and nothing else
says so: what an interrupted push left, after whatever cut or power loss, is found by reading it. What a release's
recipe.json tells is believed in the same way: its bytes are read, and count where their digest is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import Any, BinaryIO, Dict, Iterable, Iterator, List, Optional, Tuple

from .arguments import parse_object
from .disk import confined
from .errors import AgentError, bad_request
from .failpoints import reach
from .releases import list_apps, list_releases, release_folder

DIGEST_BYTES = 8
RECIPE = "recipe.json"
MODEL = "model.tflite"
RECIPE_SCHEMA = 2
RECIPE_LIMIT = 4 * 1024 * 1024
CHUNK_LIMIT = 1024 * 1024

ChunkName = Tuple[bytes, int]  # the first 64 bits of a chunk's SHA-256, and its length


def name_chunk(chunk: bytes) -> ChunkName:
    """What a recipe calls these bytes."""
    return hashlib.sha256(chunk).digest()[:DIGEST_BYTES], len(chunk)


def parse_recipe(content: bytes) -> List[ChunkName]:
    """The chunks of a model, one after the other, as its recipe.json names them."""
    if len(content) > RECIPE_LIMIT:
        raise bad_request("A recipe is larger than 4 MiB.")
    value = parse_object(content, "A recipe")
    lengths, digests = value.get("lengths"), value.get("digests")
    if (value.get("schema"), value.get("file")) != (RECIPE_SCHEMA, MODEL):
        raise bad_request("A recipe is of a kind that this agent does not know.")
    if not isinstance(lengths, list) or not isinstance(digests, str) or len(digests) != 2 * DIGEST_BYTES * len(lengths):
        raise bad_request("A recipe does not name each of its chunks.")
    if not all(isinstance(length, int) and 0 < length <= CHUNK_LIMIT for length in lengths):
        raise bad_request("A recipe has a chunk of no length that there is.")
    try:
        names = bytes.fromhex(digests)
    except ValueError:
        names = b""
    if len(names) != DIGEST_BYTES * len(lengths):
        raise bad_request("A recipe's digests are none.")
    return [(names[DIGEST_BYTES * i : DIGEST_BYTES * (i + 1)], int(length)) for i, length in enumerate(lengths)]


def place_chunks(chunks: Iterable[ChunkName]) -> Iterator[Tuple[int, ChunkName]]:
    """Each chunk with its offset in the file."""
    offset = 0
    for name in chunks:
        yield offset, name
        offset += name[1]


class Weave:
    """A file that is put together from chunks; ``wanted`` are those that are not there yet, with their offsets.

    ``expected`` are the ones that the host has to send, in this order. Without a ``file`` chunks are only counted.
    """

    def __init__(self, sha256: str, size: int, chunks: List[ChunkName]) -> None:
        if sum(length for _, length in chunks) != size:
            raise bad_request("A recipe is not that of a file of this size.")
        self.sha256 = sha256
        self.size = size
        self.chunks = chunks
        self.wanted: Dict[ChunkName, List[int]] = {}
        for offset, name in place_chunks(chunks):
            self.wanted.setdefault(name, []).append(offset)
        self.expected: List[ChunkName] = []
        self.file: Optional[BinaryIO] = None

    def gather(self, source: BinaryIO, chunks: Iterable[ChunkName]) -> None:
        """Takes over every wanted chunk that another file really holds where its recipe says."""
        for offset, name in place_chunks(chunks):
            if name in self.wanted:
                data = os.pread(source.fileno(), name[1], offset)
                if name_chunk(data) == name:
                    self.put(data, name)

    def keep(self, file: BinaryIO) -> None:
        """Counts what an earlier push left in the file itself."""
        for offset, name in place_chunks(self.chunks):
            if name in self.wanted:
                data = os.pread(file.fileno(), name[1], offset)
                if name_chunk(data) == name:
                    self.put(data, name, there=offset)

    def put(self, data: bytes, name: ChunkName, there: int = -1) -> None:
        """Writes a chunk to each of its places but the one where it is already."""
        for offset in self.wanted.pop(name):
            if offset != there and self.file is not None:
                write_at(self.file, data, offset)

    def expect(self) -> bytes:
        """Settles what the host has to send: a bit for each chunk, the lowest of a byte first; each content once."""
        bits = bytearray((len(self.chunks) + 7) // 8)
        asked = set()
        for index, name in enumerate(self.chunks):
            if name in self.wanted and name not in asked:
                asked.add(name)
                bits[index // 8] |= 1 << index % 8
                self.expected.append(name)
        self.expected.reverse()  # the next one is popped from its end
        return bytes(bits)

    def receive(self, pieces: Iterable[bytes]) -> None:
        """Takes the expected chunks out of what the host sends; each counts as soon as it is whole."""
        waiting = bytearray()
        for piece in pieces:
            waiting += piece
            while self.expected and len(waiting) >= self.expected[-1][1]:
                name = self.expected.pop()
                data = bytes(waiting[: name[1]])
                del waiting[: name[1]]
                if name_chunk(data) != name:
                    raise AgentError("digest-mismatch", "A chunk that arrived is not what it should be.", "Push again.")
                self.put(data, name)
                reach("delta:writing")
            if not self.expected and waiting:
                raise bad_request("More chunks came than are wanted.")
        if waiting:
            raise bad_request("The chunks end in the middle of one.")


def write_at(file: BinaryIO, data: bytes, offset: int) -> None:
    """Writes all of these bytes at an offset."""
    view = memoryview(data)
    while view:
        count = os.pwrite(file.fileno(), view, offset)
        view, offset = view[count:], offset + count


def find_models(root: str) -> Iterator[Tuple[str, str]]:
    """The model and the recipe of each release on this device; a model that several releases share, once."""
    seen = set()
    for app in list_apps(root):
        for release in list_releases(root, app):
            folder = release_folder(root, app, release)
            with contextlib.suppress(OSError, AgentError):
                model, recipe = confined(folder, MODEL), confined(folder, RECIPE)
                found, told = os.lstat(model), os.lstat(recipe)
                regular = stat.S_ISREG(found.st_mode) and stat.S_ISREG(told.st_mode)
                if regular and (found.st_dev, found.st_ino) not in seen:
                    seen.add((found.st_dev, found.st_ino))
                    yield model, recipe


def gather_all(weave: Weave, root: str) -> None:
    """Takes over what the releases on this device hold; a recipe or a model that is damaged only helps less."""
    for model, recipe in find_models(root):
        if not weave.wanted:
            return
        with contextlib.suppress(AgentError), open(recipe, "rb") as told, open(model, "rb") as source:
            chunks = parse_recipe(told.read(RECIPE_LIMIT + 1))
            weave.gather(source, chunks)


def woven_path(root: str, sha256: str) -> str:
    """Where a model grows."""
    return confined(root, "incoming", f"{sha256}.woven")


def allocated_bytes(path: str) -> int:
    """What a file that may have holes takes of the disk; 0 where there is none."""
    try:
        return os.lstat(path).st_blocks * 512
    except OSError:
        return 0


def tell_deltas(root: str, digests: Iterable[Any]) -> Dict[str, int]:
    """How many models of releases a delta could draw on here, and what unfinished ones take of the disk already."""
    staged = [allocated_bytes(woven_path(root, str(sha256))) for sha256 in digests]
    return {
        "models": sum(1 for _ in find_models(root)) + sum(1 for size in staged if size),
        "staged_bytes": sum(staged),
    }
