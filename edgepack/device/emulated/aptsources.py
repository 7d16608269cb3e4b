"""Which Debian mirror this machine uses, from its apt sources; both of apt's formats (sources.list(5))."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgepack.errors import InputError

MIRRORS_HINT = "Name one near you: --mirror http://ADDRESS/debian (https://www.debian.org/mirror/list)."
_SCHEMES = ("http", "https", "file")  # what debootstrap fetches from
# Debian's releases by name and by role. https://www.debian.org/releases/
_SUITES = frozenset(
    ("buster", "bullseye", "bookworm", "trixie", "forky", "duke", "sid", "unstable", "testing", "stable", "oldstable")
)
_ONE_LINE = re.compile(
    r"(?P<type>\S+)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)"
)


@dataclass(frozen=True, slots=True)
class AptSource:
    """One place that apt takes binary packages from; ``keyring`` is the file or key that vouches for it, if named."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    keyring: str = ""


def parse_list(text: str) -> list[AptSource]:
    """The sources of a ``.list`` file: a line each. What apt would not understand is passed over."""
    sources = []
    for line in text.splitlines():
        found = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
        if found and found["type"] == "deb":
            signed = re.search(r"signed-by=(\S+)", found["options"] or "", re.IGNORECASE)
            components = tuple(found["components"].split())
            sources.append(AptSource((found["uri"],), (found["suite"],), components, signed[1] if signed else ""))
    return sources


def parse_deb822(text: str) -> list[AptSource]:
    """The sources of a ``.sources`` file: stanzas of fields. Those that are not enabled are left out."""
    sources = []
    for fields in _stanzas(text):
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes").lower() not in ("no", "false"):
            uris, suites, components = (tuple(fields.get(key, "").split()) for key in ("uris", "suites", "components"))
            sources.append(AptSource(uris, suites, components, fields.get("signed-by", "")))
    return sources


def _stanzas(text: str) -> Iterator[Mapping[str, str]]:
    """Fields by their lower-case names; a line that begins with a blank goes on with the field before it."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0].isspace():
            fields[name] = f"{fields.get(name, '')} {line.strip()}"
        else:
            key, _, value = line.partition(":")
            name = key.strip().lower()
            fields[name] = value.strip()


def choose_mirror(sources: Iterable[AptSource], suite: str) -> str | None:
    """The mirror of the Debian archive among these sources, None where there is none; pure.

    Third parties name their suites after Debian's too. The archive is what Debian's own keyring vouches for, what
    serves a release's updates beside the release, or what Debian runs itself; one that has ``suite`` goes first.
    """
    everything = list(sources)
    found = [
        (suite not in source.suites, place, uri.rstrip("/"))
        for place, source in enumerate(everything)
        for uri in source.uris
        if _SUITES & set(source.suites) and "main" in source.components and _is_archive(uri, source, everything)
    ]
    return min(found)[2] if found else None


def _is_archive(uri: str, source: AptSource, sources: Sequence[AptSource]) -> bool:
    try:
        parts = urlsplit(uri)
    except ValueError:
        return False
    if parts.scheme not in _SCHEMES:
        return False
    beside = {suite for other in sources if uri in other.uris for suite in other.suites}
    updates = any(f"{suite}-updates" in beside for suite in source.suites)
    host = parts.hostname or ""
    of_debian = host == "debian.org" or host.endswith(".debian.org")
    return "debian-archive-keyring" in source.keyring or updates or of_debian


def read_sources(apt: Path = Path("/etc/apt")) -> list[AptSource]:
    """This machine's apt sources, in apt's order; a file that cannot be read has none."""
    found = parse_list(_text(apt / "sources.list"))
    folder = apt / "sources.list.d"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix == ".list":
            found += parse_list(_text(path))
        elif path.suffix == ".sources":
            found += parse_deb822(_text(path))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def mirror_for(suite: str, named: str | None = None) -> str:
    """The mirror to make a system from: ``named`` (``--mirror``), else that of this machine.

    Raises InputError "bad-mirror", "no-mirror".
    """
    if named is not None:
        if not re.fullmatch(r"(https?|file)://\S+", named):
            raise InputError(
                "bad-mirror",
                f"{named!r} is no address of a Debian mirror.",
                hint=MIRRORS_HINT,
            )
        return named.rstrip("/")
    found = choose_mirror(read_sources(), suite)
    if found is None:
        raise InputError(
            "no-mirror",
            "The apt sources of this machine (/etc/apt) name no mirror of Debian.",
            hint=MIRRORS_HINT,
        )
    return found
