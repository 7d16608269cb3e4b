"""The page of a report in a real browser: it draws without complaint, in light and in dark, and runs nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from report_documents import checked, quantized, tuned
from test_report_page import EVIL

from edgepack.report.page import Reportable, page

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: sudo apt-get install chromium")


def browse(folder: Path, text: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Open the page in a fresh profile, off the network."""
    (folder / "report.html").write_text(text, encoding="utf-8")
    command = [
        str(CHROMIUM), "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={folder}/profile",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--window-size=900,1200",
        *(["--no-sandbox"] if os.geteuid() == 0 else []), *options, (folder / "report.html").as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize(
    "text",
    [page(quantized(40)), page(tuned()), page(checked()), page(checked(5_000))],
    ids=["quantize", "tune", "check", "check-of-many"],
)
def test_a_browser_draws_the_page_without_complaint(tmp_path: Path, text: str) -> None:
    """No drawing is refused, nothing is blocked, and every element that was written is there."""
    done = browse(tmp_path, text, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    for name in ("<svg", "<rect", "<path", "<tr", "<td", "<section", "<figure"):
        assert done.stdout.count(name) == text.count(name)


def test_a_browser_complains_where_a_drawing_is_broken(tmp_path: Path) -> None:
    """The test above would see it."""
    broken = page(quantized(4)).replace(' d="M0', ' d="Mnan', 1)
    assert "CONSOLE" in browse(tmp_path, broken, "--dump-dom").stderr


def test_a_browser_makes_no_element_of_a_name(tmp_path: Path) -> None:
    """Names that try to be a script stay text."""
    dom = browse(tmp_path, page(quantized(9, EVIL)), "--dump-dom").stdout
    assert "<script" not in dom
    assert "<img" not in dom
    assert "&lt;script&gt;alert(1)" in dom


def test_the_data_of_a_check_stay_data_in_a_browser(tmp_path: Path) -> None:
    """The one script element is a block of JSON, which no browser runs; names in it and around it stay text."""
    done = browse(tmp_path, page(checked(name=EVIL)), "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<script") == done.stdout.count('<script type="application/json" id="edgepack-check">')
    assert "<img" not in done.stdout
    assert "&lt;script&gt;alert(1)" in done.stdout


@pytest.mark.parametrize("document", [quantized(), checked()], ids=["quantize", "check"])
@pytest.mark.parametrize(("scheme", "darkest", "brightest"), [("1", 200, 255), ("0", 0, 60)], ids=["light", "dark"])
def test_the_page_is_light_or_dark_as_the_reader_is(
    tmp_path: Path, document: Reportable, scheme: str, darkest: int, brightest: int
) -> None:
    """The background follows the reader's own setting, and something is drawn on it."""
    shot = tmp_path / "shot.png"
    browse(tmp_path, page(document), f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={scheme}")
    with Image.open(shot) as image:
        grey = image.convert("L")
    assert darkest <= grey.getpixel((1, 1)) <= brightest  # type: ignore[operator]
    low, high = grey.getextrema()
    assert high - low > 120  # type: ignore[operator]
