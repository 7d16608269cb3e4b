"""What this machine has for the job, what it lacks, what mends it."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepack.cli.render_probe import doctor
from edgepack.doctor import DoctorDocument, HostCheck, examine, folder_size, last_error, openssh_version

PAGE = b'<!doctype html><a href="numpy-9.9.9-py3-none-any.whl">numpy-9.9.9-py3-none-any.whl</a>'


class Index(http.server.BaseHTTPRequestHandler):
    """A package index with one file in it."""

    def do_GET(self) -> None:
        """The page of any project."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[http.server.HTTPServer]:
    """A package index on this machine, which pip is configured for; nothing of the user's own is read."""
    with http.server.HTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
        monkeypatch.setenv("EDGEPACK_SSH_CONFIG", "/dev/null")
        for name in ("PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield server
        server.shutdown()


def named(document: DoctorDocument) -> dict[str, HostCheck]:
    """The checks by their names."""
    return {check.name: check for check in document.checks}


def test_a_machine_that_has_everything_is_healthy(index: http.server.HTTPServer) -> None:
    """Python, the libraries for quantizing, ssh and its files, pip and its index, cache and temporary folder."""
    found = named(examine())
    for name in ("python", "tensorflow", "litert-quantizer", "ssh", "SSH configuration", "known hosts", "pip"):
        assert found[name].ok, found[name]
    assert found["package index"].found == "answers"
    assert {"ssh-keygen", "sshd", "edgetpu_compiler", "vela", "emulated devices", "cache folder"} <= found.keys()
    assert all(check.mend or check.ok for check in found.values())
    assert "free" in str(found["cache folder"].found)


def test_an_index_that_does_not_answer_is_told_and_makes_no_machine_ill(index: http.server.HTTPServer) -> None:
    """Off line, a bundle takes wheels that were fetched before or lie in a folder: doctor names both ways."""
    index.shutdown()
    index.server_close()
    document = examine()
    check = named(document)["package index"]
    assert not check.ok
    assert check.optional
    assert "--wheels" in check.mend
    assert check.found
    assert document.healthy == all(one.ok or one.optional for one in document.checks)


def test_what_is_missing_is_told_with_the_command_that_mends_it(
    index: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without OpenSSH's client on the PATH the machine is not healthy, and apt's command stands there; exit code 2."""
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    done = subprocess.run([sys.executable, "-m", "edgepack", "doctor", "--json"], capture_output=True, check=False)
    document = json.loads(done.stdout)
    checks = {check["name"]: check for check in document["checks"]}
    assert (done.returncode, document["healthy"]) == (2, False)
    assert (checks["ssh"]["ok"], checks["ssh"]["mend"]) == (False, "sudo apt install openssh-client")
    assert checks["vela"]["optional"]
    assert "util-linux" in checks["emulated devices"]["mend"]
    text = doctor(DoctorDocument(False, tuple(HostCheck(**check) for check in document["checks"])))
    assert "MISSING   ssh " in text
    assert "mend: sudo apt install openssh-client" in text
    assert "not here  vela" in text


def test_ssh_files_that_cannot_be_read_are_told_in_ssh_s_own_words(
    index: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slip in the configuration, a known_hosts that is a folder: each would stop every command on a device."""
    config = tmp_path / "config"
    config.write_text("Host *\n NoSuchOption yes\n")
    monkeypatch.setenv("EDGEPACK_SSH_CONFIG", str(config))
    broken = named(examine())["SSH configuration"]
    assert not broken.ok
    assert "nosuchoption" in str(broken.found).lower()
    config.write_text("")
    monkeypatch.setenv("EDGEPACK_KNOWN_HOSTS", str(tmp_path))
    unreadable = named(examine())["known hosts"]
    assert not unreadable.ok
    assert str(tmp_path) in str(unreadable.found)


def test_a_cache_folder_that_cannot_be_written_is_told(
    index: http.server.HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache's size and place are told; one below a file is no folder to write to."""
    (tmp_path / "edgepack").mkdir()
    (tmp_path / "edgepack" / "wheel").write_bytes(bytes(1_500_000))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    told = str(named(examine())["cache folder"].found)
    assert told.startswith(f"{tmp_path}/edgepack (1 files, 1.5 MB; ")
    assert folder_size(tmp_path, limit_s=-1.0) == (0, 0, False)
    assert folder_size(tmp_path / "none") == (0, 0, True)


@given(st.one_of(st.text(), st.text("OpenSSH_.0189p \n")))
def test_no_answer_of_a_program_crashes_doctor(text: str) -> None:
    """Whatever ssh and pip print is read or passed over."""
    version = openssh_version(text)
    assert version is None or min(version) >= 0
    assert last_error(text) is None or len(str(last_error(text))) <= 200


def test_openssh_s_version_is_compared_as_numbers() -> None:
    """10.0 is newer than 8.1."""
    assert openssh_version("OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1") == (10, 0)
    assert openssh_version("OpenSSH_9.2p1 Debian-2, OpenSSL 3.0.11") == (9, 2)
    assert openssh_version("Dropbear v2022.83") is None
