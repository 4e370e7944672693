"""Run pykka's own tests on our future: ``make conformance``.

They are not installed with pykka but come in its sdist, so that of the installed version is
downloaded into a temporary folder. Nothing of it is copied to here.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

# An index that does not answer for a moment is asked again, more patiently than by default.
PATIENTLY = ["--retries", "8", "--timeout", "30"]
PIP = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *PATIENTLY]


def fetch(folder: Path) -> Path:
    """Download and unpack pykka's sdist; returns its root."""
    wanted = f"pykka=={importlib.metadata.version('pykka')}"
    only_source = ["--no-deps", "--no-binary", "pykka"]
    subprocess.run([*PIP, "download", *only_source, "--dest", folder, wanted], check=True)
    [archive] = folder.glob("pykka-*.tar.gz")
    with tarfile.open(archive) as tar:
        safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # before 3.11.4
        tar.extractall(folder, **safely)
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def environment(folder: Path) -> dict[str, str]:
    """Where the tests find what they import: pytest-mock, our plugin and us."""
    extra = folder / "site"
    subprocess.run([*PIP, "install", "--no-deps", "--target", extra, "pytest-mock"], check=True)
    path = [str(HERE), str(ROOT), str(extra), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def main() -> int:
    """Exit with pytest's code."""
    with tempfile.TemporaryDirectory(prefix="ion_actors-pykka-") as name:
        folder = Path(name)
        root = fetch(folder)
        pytest = [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "pykka_plugin"]
        # Their tests, not their settings: those ask for plugins that we do not have.
        settings = ["-c", os.devnull, "--rootdir", root, "--timeout", "60", "-W", "default"]
        done = subprocess.run(
            [*pytest, *settings, "tests", *sys.argv[1:]],
            cwd=root,
            env=environment(folder),
            check=False,
        )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
