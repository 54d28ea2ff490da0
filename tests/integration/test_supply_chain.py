"""What is installed is what was locked: a hash that is another one fails the install."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
DIST_INFO = "tiny-1.0.dist-info"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """The smallest package there is, so that pip needs no network."""
    files = {
        "tiny.py": "",
        f"{DIST_INFO}/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{DIST_INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{name},sha256={_digest(content)},{len(content)}" for name, content in files.items()]
    path = tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {
            **files,
            f"{DIST_INFO}/RECORD": "\n".join([*record, f"{DIST_INFO}/RECORD,,", ""]),
        }.items():
            archive.writestr(name, content)
    return path


def install(wheel: Path, lock: str, target: Path) -> subprocess.CompletedProcess[str]:
    """As `make install` does, from a folder instead of an index."""
    file = target.with_suffix(".lock")
    file.write_text(lock)
    options = [
        "--no-deps",
        "--require-hashes",
        "--no-index",
        "--find-links",
        str(wheel.parent),
        "--target",
        str(target),
    ]
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--isolated",
        "--disable-pip-version-check",
        *options,
        "-r",
        str(file),
    ]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def test_a_tampered_hash_fails_the_install(wheel: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    tampered = ("0" if digest[0] != "0" else "1") + digest[1:]
    good = install(wheel, f"tiny==1.0 --hash=sha256:{digest}\n", tmp_path / "good")
    assert good.returncode == 0, good.stderr
    assert (tmp_path / "good" / "tiny.py").exists()
    bad = install(wheel, f"tiny==1.0 --hash=sha256:{tampered}\n", tmp_path / "bad")
    assert bad.returncode != 0
    assert "DO NOT MATCH THE HASHES" in bad.stderr
    assert not (tmp_path / "bad").exists()


def test_a_changed_file_fails_the_install(wheel: Path, tmp_path: Path) -> None:
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("more.py", "print('not what was locked')")
    assert install(wheel, f"tiny==1.0 --hash=sha256:{digest}\n", tmp_path / "bad").returncode != 0


def test_what_has_no_hash_fails_the_install(wheel: Path, tmp_path: Path) -> None:
    assert install(wheel, "tiny==1.0\n", tmp_path / "bad").returncode != 0


def test_every_install_of_ours_asks_for_hashes() -> None:
    for file in (ROOT / "Makefile", ROOT / "Dockerfile"):
        lines = [line for line in file.read_text().splitlines() if "pip install" in line and ".lock" in line]
        assert lines
        assert all("--require-hashes" in line and "--no-deps" in line for line in lines), file


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_hashes_and_names_no_registry(lock: Path) -> None:
    text = lock.read_text()
    packages = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)[1:]
    assert packages
    assert all("==" in package and "--hash=sha256:" in package for package in packages)
    assert not re.search(r"://|--(extra-)?index|--find-links", text)


def _digest(content: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).decode().rstrip("=")
