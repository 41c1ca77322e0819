"""A folder that is a whole Hugging Face Space: `python -m examples.space.gather FOLDER`, then `hf upload`."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from examples.space.classifiers import CLEAN, ROBUST, ROOT, load_clean


HERE = Path(__file__).resolve().parent
CODE = ("hf_smoothing", "examples/space", "examples/data")
FILES = ("examples/__init__.py", "LICENSE")
APP = """from examples.space.app import main


main()
"""


def gather(folder: Path, root: Path = ROOT, clean: Path = CLEAN) -> list[Path]:
    """Copy what the page needs, each file at its place within the repository; README.md and requirements.txt of the Space lie on top.

    Args:
        folder: Where to; it must not exist, so that nothing of an older version stays behind.
        root: The repository.
        clean: The finetuned clean classifier; a Space then need not train it.

    Returns:
        All files, relative to the folder.

    Raises:
        FileExistsError: If the folder exists.
    """
    if folder.exists():
        raise FileExistsError(f"The folder of a Space must not exist, got {folder}. Remove it, or choose another.")
    unwanted = shutil.ignore_patterns("__pycache__", "*.py[co]")
    for path in (*CODE, ROBUST.relative_to(ROOT)):
        shutil.copytree(root / path, folder / path, ignore=unwanted)
    shutil.copytree(clean, folder / CLEAN.relative_to(ROOT))
    for name in FILES:
        shutil.copy(root / name, folder / name)
    for name in ("README.md", "requirements.txt"):
        shutil.copy(HERE / name, folder / name)
    (folder / "app.py").write_text(APP, encoding="utf-8")
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder to make")
    folder = parser.parse_args().folder
    load_clean()
    files = gather(folder)
    size = sum((folder / name).stat().st_size for name in files)
    print(f"{len(files)} files, {size / 1e6:.0f} MB, in {folder}. Try it: cd {folder} && python app.py")


if __name__ == "__main__":
    main()
