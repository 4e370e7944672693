"""Where the photographs come from: the user's folder, or the ones inside scikit-image.

scikit-image's package carries small photographs for its own tests. Only those below are used: real
photographs whose documentation (``skimage.data``) says that they may be used freely. They are
installed with scikit-image and are not part of this repository.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CREDITS", "KINDS", "Photo", "PhotosNotFoundError", "find_photos"]

CREDITS = {
    "astronaut.png": "Eileen Collins, NASA (public domain)",
    "brick.png": "Brick wall, CC0Textures (CC0)",
    "camera.png": "Cameraman, Lav Varshney (CC0)",
    "chelsea.png": "Chelsea the cat, Stefan van der Walt (CC0)",
    "coffee.png": "Coffee cup at Pikolo Espresso Bar, Rachel Michetti (CC0)",
    "coins.png": "Greek coins from Pompeii, Brooklyn Museum (no known copyright restrictions)",
    "hubble_deep_field.jpg": "Hubble eXtreme Deep Field, NASA (public domain)",
    "retina.jpg": "Human retina, Mikael Häggström (CC0)",
    "rocket.jpg": "Launch of DSCOVR, SpaceX (public domain)",
}

KINDS = frozenset({".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class PhotosNotFoundError(Exception):
    """There is nothing to make thumbnails of; the message says why."""


@dataclass(frozen=True, slots=True)
class Photo:
    """One photograph: where it is, and a name that no other photograph of the run has."""

    name: str
    path: Path


def find_photos(folder: Path | None) -> list[Photo]:
    """The photographs directly inside ``folder``, by name; without a folder, the samples."""
    paths = _samples() if folder is None else _pictures_in(folder)
    stems = {path.stem.casefold() for path in paths}
    # Names become file names, so `a.jpg` and `a.png` in one folder must not both be called `a`.
    return [Photo(p.stem if len(stems) == len(paths) else p.name, p) for p in paths]


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        problem = "not a folder" if folder.exists() else "no such folder"
        raise PhotosNotFoundError(f"{problem}: {folder}")
    entries = (p for p in folder.iterdir() if not p.name.startswith("."))
    found = sorted(p for p in entries if p.suffix.lower() in KINDS and p.is_file())
    if not found:
        kinds = " ".join(sorted(KINDS))
        raise PhotosNotFoundError(f"no pictures ({kinds}) directly inside: {folder}")
    return found


def _samples() -> list[Path]:
    # find_spec locates the package without importing it, which would load all of numpy and scipy.
    spec = importlib.util.find_spec("skimage")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    found = [p for root in roots for n in CREDITS if (p := Path(root, "data", n)).is_file()]
    if not found:
        raise PhotosNotFoundError(
            "the default photographs come with scikit-image, which is not installed: "
            "pip install '.[demo]', or name a folder of your own with --images"
        )
    return found
