"""Which files of a folder are pictures; what the system leaves there is none."""

from pathlib import Path

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")

_LEFT_BY_SYSTEMS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is some system's own: `.DS_Store`, `._x.jpg`, `.ipynb_checkpoints`."""
    return name.startswith(".") or name in _LEFT_BY_SYSTEMS


def is_image_file(path: Path, folder: Path) -> bool:
    """Whether a path below a folder is a picture of the user's, by its name and those of the folders between."""
    return path.suffix.lower() in SUFFIXES and not any(map(is_hidden, path.relative_to(folder).parts))


def image_files(folder: Path) -> list[Path]:
    """All pictures in a folder and below, sorted."""
    return sorted(path for path in folder.rglob("*") if is_image_file(path, folder) and path.is_file())


def subfolders(folder: Path) -> list[Path]:
    """The user's own folders directly in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_hidden(path.name))
