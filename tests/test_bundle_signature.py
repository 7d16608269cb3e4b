"""Signatures: made by ssh-keygen over the manifest, held against a file of allowed signers, explained where refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bundle_tiny import FILES, manifest_value, write_tiny
from deploying import this_machine, tiny_bundle, tiny_model, tiny_target
from hypothesis import given
from hypothesis import strategies as st

import edgepack
from edgepack.bundle import open_bundle
from edgepack.bundle.archive import write_archive
from edgepack.bundle.build import build_bundle
from edgepack.bundle.signature import sign
from edgepack.bundle.sshsig import read_signature
from edgepack.cli.main import run
from edgepack.device import ConnectOptions
from edgepack.documents import canonical_json
from edgepack.errors import EdgepackError, InputError, IntegrityError


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys: alice's and mallory's, one of each other kind, an encrypted one, and a certified one."""
    folder = tmp_path_factory.mktemp("keys")
    for name, kind, words in [
        ("alice", "ed25519", ""), ("mallory", "ed25519", ""), ("rsa", "rsa", ""), ("ecdsa", "ecdsa", ""),
        ("locked", "ed25519", "a passphrase"), ("authority", "ed25519", ""), ("bob", "ed25519", ""),
    ]:  # fmt: skip
        keygen("-q", "-t", kind, "-N", words, "-C", name, "-f", str(folder / name))
    keygen("-q", "-s", str(folder / "authority"), "-I", "bob", "-n", "bob@example.com", str(folder / "bob.pub"))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier."""
    return tiny_model(tmp_path_factory.mktemp("model"))


def keygen(*arguments: str) -> str:
    """Runs ssh-keygen."""
    return subprocess.run(["ssh-keygen", *arguments], check=True, capture_output=True, text=True).stdout


def signed(model: Path, output: Path, key: Path | None, **more: Any) -> Path:
    """A bundle of the model, signed by that key."""
    build_bundle(
        model, target=tiny_target(), name="tiny", version="1", output=output, with_runtime=False, sign_key=key, **more
    )
    return output


def signers(folder: Path, *lines: str) -> Path:
    """A file of allowed signers."""
    path = folder / "signers"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def public(keys: Path, name: str) -> str:
    """A public key without its comment."""
    return " ".join((keys / f"{name}.pub").read_text().split()[:2])


def test_a_signed_bundle_says_who_signed_it_and_verifies(model: Path, keys: Path, tmp_path: Path) -> None:
    """The key is shown as ssh-keygen shows it, and verify adds the name that the allowed signers give it."""
    path = signed(model, tmp_path / "a.edgepack", keys / "alice", counter=7)
    fingerprint = keygen("-l", "-f", str(keys / "alice.pub")).split()[1]
    seen = edgepack.inspect(path)
    assert seen.signature is not None
    assert (seen.signature.principal, seen.signature.fingerprint, seen.counter) == (None, fingerprint, 7)
    assert (seen.signature.key_type, seen.signature.namespace) == ("ssh-ed25519", "edgepack")
    found = edgepack.verify(path, allowed_signers=signers(tmp_path, f"alice@example.com {public(keys, 'alice')}"))
    assert found.signature is not None
    assert (found.signature.principal, found.signature.fingerprint) == ("alice@example.com", fingerprint)


def test_the_signature_lies_outside_of_the_release_id(model: Path, keys: Path, tmp_path: Path) -> None:
    """Signed or not, by whomever, the release is the same; without --sign the bytes are as if signing did not exist."""
    plain = signed(model, tmp_path / "plain.edgepack", None)
    one = signed(model, tmp_path / "one.edgepack", keys / "alice")
    other = signed(model, tmp_path / "other.edgepack", keys / "mallory")
    assert open_bundle(plain).release == open_bundle(one).release == open_bundle(other).release
    with zipfile.ZipFile(plain) as without, zipfile.ZipFile(one) as there:
        assert set(there.namelist()) - set(without.namelist()) == {"manifest.json.sig"}


@pytest.mark.parametrize("kind", ["alice", "rsa"])
def test_an_ed25519_or_rsa_signature_is_reproducible(model: Path, keys: Path, tmp_path: Path, kind: str) -> None:
    """The same key gives the same bundle, byte for byte."""
    made = [signed(model, tmp_path / f"{name}.edgepack", keys / kind).read_bytes() for name in "ab"]
    assert made[0] == made[1]


def test_an_ecdsa_key_signs_as_well(model: Path, keys: Path, tmp_path: Path) -> None:
    """Its signatures differ every time, and each is right."""
    path = signed(model, tmp_path / "a.edgepack", keys / "ecdsa")
    found = edgepack.verify(path, allowed_signers=signers(tmp_path, f'c namespaces="edgepack" {public(keys, "ecdsa")}'))
    assert found.signature is not None
    assert found.signature.principal == "c"


def test_a_counter_makes_another_release(model: Path, tmp_path: Path) -> None:
    """The counter is signed because it stands in the manifest, from which the release id comes."""
    ids = {open_bundle(signed(model, tmp_path / "a.edgepack", None, counter=n)).release for n in (None, 1, 2)}
    assert len(ids) == 3
    with pytest.raises(InputError, match="counter of a release"):
        signed(model, tmp_path / "b.edgepack", None, counter=-1)


def refused(path: Path, allowed: Path | None) -> IntegrityError:
    """The error that verify and push both end in, before any device is called."""
    with pytest.raises(IntegrityError) as at_verify:
        edgepack.verify(path, allowed_signers=allowed)
    with pytest.raises(IntegrityError) as at_push:
        edgepack.push(path, "nobody@127.0.0.1:1", allowed_signers=allowed)
    assert (at_verify.value.code, at_verify.value.exit_code) == (at_push.value.code, 6)
    assert at_verify.value.hint
    return at_verify.value


def test_what_is_not_signed_as_it_has_to_be_is_refused(model: Path, keys: Path, tmp_path: Path) -> None:
    """Unsigned, by a foreign key, by one for another purpose: exit 6, and what to do, before the device is called."""
    plain = signed(model, tmp_path / "plain.edgepack", None)
    path = signed(model, tmp_path / "a.edgepack", keys / "mallory")
    only_alice = signers(tmp_path, f"alice {public(keys, 'alice')}")
    assert refused(plain, only_alice).code == "unsigned"
    error = refused(path, only_alice)
    assert error.code == "foreign-signature"
    assert keygen("-l", "-f", str(keys / "mallory.pub")).split()[1] in error.message
    for_git = signers(tmp_path, f'mallory namespaces="git" {public(keys, "mallory")}')
    assert "not for the namespace 'edgepack'" in refused(path, for_git).message


@pytest.mark.parametrize("option", ['valid-before="20200101"', 'valid-after="20990101"'])
def test_a_key_that_is_not_valid_today_is_refused(model: Path, keys: Path, tmp_path: Path, option: str) -> None:
    """The lifetime of a key is judged here, by this machine's clock, and told as what it is."""
    path = signed(model, tmp_path / "a.edgepack", keys / "alice")
    error = refused(path, signers(tmp_path, f"alice {option} {public(keys, 'alice')}"))
    assert error.code == "signer-expired"
    inside = 'valid-after="20200101",valid-before="20990101"'
    assert edgepack.verify(path, allowed_signers=signers(tmp_path, f"alice {inside} {public(keys, 'alice')}")).signature


def test_a_certificate_authority_vouches_for_its_keys(model: Path, keys: Path, tmp_path: Path) -> None:
    """A cert-authority line works as ssh-keygen does it: any key that it certified, under the certificate's name."""
    with agent_of(keys / "bob", tmp_path):
        path = signed(model, tmp_path / "a.edgepack", keys / "bob-cert.pub")
    found = edgepack.verify(
        path, allowed_signers=signers(tmp_path, f"*@example.com cert-authority {public(keys, 'authority')}")
    )
    assert found.signature is not None
    assert found.signature.principal == "bob@example.com"
    assert found.signature.fingerprint == keygen("-l", "-f", str(keys / "bob.pub")).split()[1]
    assert refused(path, signers(tmp_path, f"*@example.com {public(keys, 'authority')}")).code == "foreign-signature"


def test_a_signature_of_something_else_is_refused_without_allowed_signers_too(
    model: Path, keys: Path, tmp_path: Path
) -> None:
    """Nobody's list is needed to see that a signature is not of this manifest, or for another purpose."""
    manifest = canonical_json(manifest_value(FILES))
    text = tmp_path / "text"
    text.write_bytes(manifest)
    keygen("-q", "-Y", "sign", "-n", "git", "-f", str(keys / "alice"), str(text))
    for name, signature, code in [
        ("other", sign(b"something else", keys / "alice"), "bad-signature"),
        ("git", (tmp_path / "text.sig").read_bytes(), "wrong-namespace"),
    ]:
        path = with_signature(tmp_path / f"{name}.edgepack", manifest, signature)
        assert refused(path, None).code == code
    right = with_signature(tmp_path / "right.edgepack", manifest, sign(manifest, keys / "alice"))
    assert edgepack.verify(right).signature is not None


def with_signature(path: Path, manifest: bytes, signature: bytes) -> Path:
    """The smallest bundle with that signature."""
    bundle = open_bundle(write_tiny(path.with_suffix(".plain"), manifest=manifest))
    sources = [(file, FILES[file.path]) for file in bundle.manifest.files]
    with path.open("wb") as stream:
        write_archive(stream, manifest, sources, signature)
    return path


@pytest.mark.parametrize(
    "signature", [b"", b"no signature", b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"]
)
def test_a_signature_that_is_none_makes_no_bundle(tmp_path: Path, signature: bytes) -> None:
    """What stands in a signature's place is read before anything believes in it."""
    path = with_signature(tmp_path / "a.edgepack", canonical_json(manifest_value(FILES)), signature)
    with pytest.raises(IntegrityError) as caught:
        open_bundle(path)
    assert (caught.value.code, caught.value.exit_code) == ("bad-signature", 6)


def test_a_file_cannot_take_the_signature_s_name(tmp_path: Path) -> None:
    """No manifest may list manifest.json.sig: it would be two things at once."""
    files = {**FILES, "manifest.json.sig": b"x"}
    with pytest.raises(IntegrityError):
        open_bundle(write_tiny(tmp_path / "a.edgepack", files))


def test_every_flipped_or_missing_byte_of_a_signature_is_noticed(keys: Path, tmp_path: Path) -> None:
    """A changed signature is refused when it is read, or when it is checked."""
    manifest = canonical_json(manifest_value(FILES))
    armored = sign(manifest, keys / "alice")
    for position in range(40, len(armored) - 40, 29):
        changed = bytearray(armored)
        changed[position] ^= 1
        path = with_signature(tmp_path / "a.edgepack", manifest, bytes(changed))
        with pytest.raises(IntegrityError):
            edgepack.verify(path)


@given(st.binary(max_size=400))
def test_reading_a_signature_ends_in_a_value_or_in_its_own_error(content: bytes) -> None:
    """Whatever stands in the place of a signature: no other exception comes out."""
    with_armour = b"-----BEGIN SSH SIGNATURE-----\n" + content + b"\n-----END SSH SIGNATURE-----\n"
    blob = base64.b64encode(b"SSHSIG\0\0\0\1" + content)
    for text in (content, with_armour, with_armour.replace(content, blob) if content else b""):
        with pytest.raises(IntegrityError):
            read_signature(text)


def test_a_key_that_cannot_sign_is_refused_with_what_to_do(
    model: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, no key at all, a locked one, one that others read, a bare public key: exit 2, and the cure."""
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    (tmp_path / "text").write_text("no key")
    shutil.copy(keys / "alice", tmp_path / "open")
    (tmp_path / "open").chmod(0o644)
    shutil.copy(keys / "alice.pub", tmp_path / "lonely.pub")
    cases = {
        tmp_path / "none": ("no-sign-key", "ssh-keygen -t ed25519"),
        tmp_path / "text": ("bad-sign-key", "Name an SSH key"),
        keys / "locked": ("sign-key-locked", "ssh-add"),
        tmp_path / "open": ("bad-sign-key", "chmod 600"),
        tmp_path / "lonely.pub": ("bad-sign-key", "ssh-add"),
    }
    for key, (code, hint) in cases.items():
        with pytest.raises(InputError) as caught:
            signed(model, tmp_path / "a.edgepack", key)
        assert caught.value.code == code, key
        assert hint in caught.value.hint
        assert not (tmp_path / "a.edgepack").exists()


class agent_of:  # noqa: N801 (used as a function)
    """A throw-away ssh-agent that holds one key, in the environment."""

    def __init__(self, key: Path, folder: Path) -> None:
        self._socket = folder / "agent"
        self._key = key
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> None:
        self._process = subprocess.Popen(["ssh-agent", "-D", "-a", str(self._socket)], stdout=subprocess.DEVNULL)
        while not self._socket.exists():
            assert self._process.poll() is None
            time.sleep(0.01)
        self._patch.setenv("SSH_AUTH_SOCK", str(self._socket))
        askpass = self._socket.with_name("askpass")
        askpass.write_text("#!/bin/sh\necho a passphrase\n")
        askpass.chmod(0o700)
        environment = {**os.environ, "SSH_ASKPASS": str(askpass), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":0"}
        subprocess.run(
            ["ssh-add", "-q", str(self._key)],
            check=True,
            stdin=subprocess.DEVNULL,
            env=environment,
            capture_output=True,
        )

    def __exit__(self, *exception: object) -> None:
        self._patch.undo()
        self._process.terminate()
        self._process.wait(10)


def test_a_key_in_the_agent_signs_by_its_public_half(model: Path, keys: Path, tmp_path: Path) -> None:
    """An encrypted key that ssh-add was given signs without a question, named by either of its files."""
    shutil.copy(keys / "locked.pub", tmp_path / "locked.pub")
    with agent_of(keys / "locked", tmp_path):
        for key in (tmp_path / "locked.pub", keys / "locked"):
            path = signed(model, tmp_path / "a.edgepack", key)
            assert edgepack.verify(path, allowed_signers=signers(tmp_path, f"l {public(keys, 'locked')}")).signature


def test_without_ssh_keygen_the_package_to_install_is_named(
    model: Path, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unsigned bundle needs no ssh-keygen; a signed one says what it needs."""
    path = signed(model, tmp_path / "a.edgepack", keys / "alice")
    plain = signed(model, tmp_path / "plain.edgepack", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert edgepack.verify(plain).signature is None
    with pytest.raises(InputError) as caught:
        edgepack.verify(path)
    assert (caught.value.code, "openssh-client" in caught.value.hint) == ("no-ssh-keygen", True)


def test_a_file_of_allowed_signers_that_is_not_there_is_named(model: Path, tmp_path: Path) -> None:
    """A typo is exit 2, not a verdict on the bundle."""
    with pytest.raises(InputError) as caught:
        edgepack.verify(tiny_bundle(tmp_path)[0], allowed_signers=tmp_path / "none")
    assert caught.value.code == "no-allowed-signers"


@pytest.fixture
def project(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose edgepack.toml signs with alice's key and takes only hers."""
    signers(tmp_path, f"alice@example.com {public(keys, 'alice')}")
    (tmp_path / "edgepack.toml").write_text(
        f'[app]\nname = "tiny"\nversion = "1"\ntarget = "generic-cpu"\n'
        f'[sign]\nkey = "{keys / "alice"}"\nallowed_signers = "signers"\n'
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_edgepack_toml_signs_and_holds_every_command_to_its_signers(
    project: Path, model: Path, keys: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """[sign] makes bundle sign, and verify and push refuse what its signers did not sign; a flag goes before it."""
    assert run(["bundle", str(model), "--without-runtime", "--counter", "3", "-o", "a.edgepack"]) == 0
    assert run(["verify", "a.edgepack"]) == 0
    assert "signed by alice@example.com (SHA256:" in capsys.readouterr().out
    assert run(["inspect", "a.edgepack", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signature"]["key_type"] == "ssh-ed25519"
    assert run(["inspect", "a.edgepack"]) == 0
    assert "not checked" in capsys.readouterr().out
    assert run(["bundle", str(model), "--without-runtime", "--sign", str(keys / "mallory"), "-o", "m.edgepack"]) == 0
    for command in (["verify", "m.edgepack"], ["push", "m.edgepack", f"local:{project / 'device'}"]):
        assert run(command) == 6
    assert not (project / "device").exists()
    signers(project, f"m {public(keys, 'mallory')}").rename(project / "others")
    assert run(["verify", "m.edgepack", "--allowed-signers", "others"]) == 0


def test_deploy_signs_what_it_builds_and_refuses_what_it_may_not_take(model: Path, keys: Path, tmp_path: Path) -> None:
    """Asked for signed bundles and given no key, deploy stops before it builds; a bundle cannot be signed by it."""
    allowed = signers(tmp_path, f"alice {public(keys, 'alice')}")
    wanted: dict[str, Any] = {"target": tiny_target(), "name": "tiny", "version": "1", "allowed_signers": allowed}
    with pytest.raises(InputError, match="no key to sign"):
        edgepack.deploy(f"local:{tmp_path / 'device'}", model, **wanted)
    path = signed(model, tmp_path / "m.edgepack", keys / "mallory")
    with pytest.raises(InputError, match="--sign"):
        edgepack.deploy(f"local:{tmp_path / 'device'}", path, sign=keys / "alice")
    with pytest.raises(EdgepackError) as caught:
        edgepack.deploy(f"local:{tmp_path / 'device'}", path, allowed_signers=allowed)
    assert caught.value.exit_code == 6
    assert not (tmp_path / "device").exists()


@pytest.mark.network
def test_deploy_builds_signed_bundles(model: Path, keys: Path, tmp_path: Path) -> None:
    """--sign and --counter are for what deploy builds, which is then held against the allowed signers as any other."""
    told = edgepack.deploy(
        f"local:{tmp_path / 'device'}", model, target=this_machine(tmp_path), name="tiny", version="1", counter=9,
        sign=keys / "alice", allowed_signers=signers(tmp_path, f"alice {public(keys, 'alice')}"), dry_run=True,
        options=ConnectOptions(python=sys.executable),
    )  # fmt: skip
    assert told.bundle is not None
    assert told.push.signature is not None
    assert (told.bundle.counter, told.push.signature.principal) == (9, "alice")
