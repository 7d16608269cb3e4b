"""Running ``pip download`` for another platform, and saying in a sentence why it could not."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from edgepack.bundle.lock import platform_tags
from edgepack.errors import EdgepackError, InputError, IntegrityError

PIP_TIMEOUT_S = 900
"""A wheel of 20 MB over a slow line; pip has its own shorter timeouts for a line that is dead."""
_ANSWER_TIMEOUT_S = 10
_SCHEMES = ("http", "https", "file")
_INSTEAD = (
    "Check the network and pip's configuration, or name a folder that has the wheels: --wheels FOLDER. "
    "With --without-runtime nothing is fetched and the device has to have its own runtime."
)


def require_fetching(extra_indexes: Sequence[str], *, wheels: Path | None, with_runtime: bool) -> None:
    """Raise InputError "usage" where options contradict each other, "bad-index" for what is no address of an index."""
    if wheels is not None and not with_runtime:
        raise InputError(
            "usage",
            "--wheels and --without-runtime exclude each other: one brings wheels, the other none.",
            hint="Leave one of them out.",
        )
    if extra_indexes and (wheels is not None or not with_runtime):
        raise InputError(
            "usage",
            f"With {'--without-runtime' if wheels is None else '--wheels'} no index is asked, --extra-index neither.",
            hint="Leave one of them out.",
        )
    for url in extra_indexes:
        if not _is_address(url):
            raise InputError(
                "bad-index",
                f"{url!r} is no address of a package index.",
                hint="Give that of its simple pages (PEP 503): --extra-index https://HOST/simple",
            )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no IPv6 address
        return False
    return parts.scheme in _SCHEMES and bool(parts.netloc or parts.scheme == "file") and not re.search(r"\s", url)


def pip_download(
    requirements: Sequence[str],
    *,
    python: str,
    arch: str,
    folder: Path,
    hashes: bool = False,
    extra_indexes: Sequence[str] = (),
) -> None:
    """Run ``pip download --no-deps`` for another platform into ``folder``.

    pip's own configuration names the index; ``extra_indexes`` are asked as well.
    Raises InputError "wheels-unavailable" with the end of pip's message, or "index-unreachable" where an extra index
    does not answer, and IntegrityError "wheel-digest" where an index has another file than the one with that digest.
    """
    listing = folder / "requirements.txt"
    listing.write_text("\n".join(requirements) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--abi=cp{python.replace('.', '')}", *(f"--platform={tag}" for tag in platform_tags(arch))]
    command += ["--require-hashes"] if hashes else []
    command += [f"--extra-index-url={url}" for url in extra_indexes]
    command += [f"--dest={folder}", f"--requirement={listing}"]
    try:
        outcome = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PIP_TIMEOUT_S, check=False
        )
        code, output = outcome.returncode, outcome.stderr or outcome.stdout
    except subprocess.TimeoutExpired:
        code, output = -1, f"pip did not end within {PIP_TIMEOUT_S} s"
    finally:
        listing.unlink(missing_ok=True)
    if code != 0:
        raise _failure([requirement.split(" ")[0] for requirement in requirements], python, arch, output, extra_indexes)


def _failure(wanted: Sequence[str], python: str, arch: str, output: str, extra_indexes: Sequence[str]) -> EdgepackError:
    """Why pip failed, from what it printed and from what the extra indexes answer."""
    other = re.search(r"^ +(\S+) from (\S+?)(?:#\S*)? .*:\n +Expected sha256", output, re.MULTILINE)
    if other:
        return IntegrityError(
            "wheel-digest",
            f"{_shown(other[2])} is not the wheel of {other[1]} that runtimes.lock names.",
            hint="Check what that index serves, or leave it out.",
            pip=output[-4000:],
        )
    names = [requirement.partition("==")[0] for requirement in wanted]
    lacking = []
    for url in extra_indexes:
        found = _asked(url, names[0])
        if isinstance(found, str):
            return InputError(
                "index-unreachable",
                f"The extra index {_shown(url)} does not answer: {found}",
                hint="Check the address and the network, or leave out --extra-index.",
                pip=output[-4000:],
            )
        lacking += [] if found else [f"The extra index {_shown(url)} has no page for {names[0]}."]
    said = " ".join([_pip_reason(output), *lacking])
    return InputError(
        "wheels-unavailable",
        f"pip could not fetch {' '.join(wanted)} for python {python}, {arch}: {said}",
        hint=_INSTEAD,
        pip=output[-4000:],
    )


def _asked(url: str, name: str) -> bool | str:
    """Whether an index has a page for that project (PEP 503); why it could not be asked, as a sentence."""
    request = urllib.request.Request(f"{_shown(url).rstrip('/')}/{name}/")  # noqa: S310 (the scheme is checked)
    login = urlsplit(url).netloc.rpartition("@")[0]
    if login:
        request.add_header("Authorization", "Basic " + base64.b64encode(unquote(login).encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_TIMEOUT_S):  # noqa: S310 (the scheme is checked)
            return True
    except urllib.error.HTTPError as refused:
        with refused:
            return False if refused.code == 404 else f"HTTP status {refused.code}."
    except (OSError, ValueError) as fault:
        return f"{getattr(fault, 'reason', fault)}."


def _shown(url: str) -> str:
    """The address without the password that may stand in it."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _pip_reason(output: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in output.splitlines() if line.startswith("ERROR: ")]
    reason = errors[-1] if errors else (output.strip().splitlines() or ["no message"])[-1]
    return reason if reason.endswith((".", "!")) else f"{reason}."
