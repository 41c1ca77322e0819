"""Folders in pieces of a stated size, for a machine that only takes small files: packed here, put together there.

    python examples/gpu/pieces.py FOLDER [FOLDER ...] OUTPUT

puts the pieces in the folders together below OUTPUT, and installs the wheels among them, if there are any, into OUTPUT/site. Nothing but
Python is needed for it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path


MANIFEST = "pieces.json"


def pack(folders: Mapping[str, Path], output: Path, piece_mib: float = 48.0) -> list[Path]:
    """Write folders into pieces of at most a size.

    Args:
        folders: Name -> folder; it is called so when it is unpacked.
        output: Folder of the pieces, with a manifest of their digests.
        piece_mib: Size of a piece in MiB.

    Returns:
        The pieces in order.

    Raises:
        ValueError: If a folder is missing, or the size is no positive number.
    """
    missing = [str(folder) for folder in folders.values() if not folder.is_dir()]
    if missing or not folders:
        raise ValueError(f"Folders to pack must exist, got {', '.join(missing) or 'none'}.")
    if not piece_mib > 0.0:
        raise ValueError(f"`piece_mib` must be a positive number of MiB, got {piece_mib}.")
    output.mkdir(parents=True, exist_ok=True)
    archive = output / "all.tar"
    with tarfile.open(archive, "w", dereference=True) as tar:  # what links point to travels
        for name, folder in folders.items():
            tar.add(folder, arcname=name)
    pieces: list[Path] = []
    digests: dict[str, str] = {}
    with archive.open("rb") as whole:
        while part := whole.read(int(piece_mib * 2**20)):
            piece = output / f"piece-{len(pieces):03d}"
            piece.write_bytes(part)
            pieces.append(piece)
            digests[piece.name] = hashlib.sha256(part).hexdigest()
    archive.unlink()
    (output / MANIFEST).write_text(json.dumps(digests, indent=1) + "\n", encoding="utf-8")
    return pieces


def unpack(sources: Sequence[Path], output: Path) -> None:
    """Put the pieces of `pack` together; nothing is done where it has been done.

    Args:
        sources: Folders that hold the pieces, and one of them the manifest.
        output: Folder in which they appear.

    Raises:
        ValueError: If there is no manifest, or a piece is missing or damaged, naming it.
    """
    manifests = [source / MANIFEST for source in sources if (source / MANIFEST).exists()]
    if not manifests:
        raise ValueError(f"One of the folders must hold {MANIFEST}, got {', '.join(map(str, sources)) or 'none'}.")
    text = manifests[0].read_text(encoding="utf-8")
    mark = output / MANIFEST
    if _text(mark) == text:
        return
    output.mkdir(parents=True, exist_ok=True)
    archive = output / "all.tar"
    with archive.open("wb") as whole:
        for name, digest in json.loads(text).items():
            found = next((source / name for source in sources if (source / name).exists()), None)
            part = b"" if found is None else found.read_bytes()
            if hashlib.sha256(part).hexdigest() != digest:
                raise ValueError(f"{name} is {'missing' if found is None else 'damaged'}: bring it again.")
            whole.write(part)
    with tarfile.open(archive) as tar:
        if mark.exists():  # what older pieces held, such as other versions of wheels, must not stay among the new
            for name in {Path(member).parts[0] for member in tar.getnames()}:
                shutil.rmtree(output / name, ignore_errors=True)
            mark.unlink()
        tar.extractall(output, filter="data")
    archive.unlink()
    mark.write_text(text, encoding="utf-8")


def install(output: Path) -> None:
    """Install the unpacked wheels, and only them, as `output`/site; nothing is done where there are none, or these have been installed.

    Raises:
        subprocess.CalledProcessError: If pip cannot.
    """
    wheels = sorted((output / "wheels").glob("*.whl"))
    site, partial = output / "site", output / "site.partial"
    text = _text(output / MANIFEST)
    if not wheels or (site.exists() and _text(site / MANIFEST) == text):
        return
    shutil.rmtree(partial, ignore_errors=True)
    quiet = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *quiet, "--target", str(partial), *map(str, wheels)], check=True
    )
    (partial / MANIFEST).write_text(text, encoding="utf-8")
    shutil.rmtree(site, ignore_errors=True)
    partial.rename(site)


def _text(file: Path) -> str:
    """Of a file; empty where there is none."""
    return file.read_text(encoding="utf-8") if file.exists() else ""


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    *folders, where = map(Path, sys.argv[1:])
    try:
        unpack(folders, where)
    except ValueError as error:
        sys.exit(f"pieces: {error}")
    install(where)
