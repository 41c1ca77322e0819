"""Install a wheel into a fresh environment and use it in an empty folder, offline, as a stranger does: what the README shows first.

    python .ci/try_wheel.py dist/hf_smoothing-1.0.0-py3-none-any.whl
    python .ci/try_wheel.py dist/hf_smoothing-1.0.0-py3-none-any.whl --borrow

With `--borrow` the dependencies are those of the Python that runs this, and installing needs no network either.
"""

from __future__ import annotations

import argparse
import email
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path


DEMO = ("demo", "--max-images", "2", "--n", "20", "--epochs", "0.1")


def first_block(wheel: Path) -> str:
    """The first Python program of the page that a package registry shows of the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        page = email.message_from_bytes(archive.read(name)).get_payload()
    found = re.search(r"^```python\n(.*?)^```$", str(page), re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError("README.md must have a block of Python, got none.")
    return found[1]


def install(wheel: Path, folder: Path, *, borrow: bool, torch_index: str | None = None) -> Path:
    """A fresh environment with the wheel.

    Args:
        wheel: What to install.
        folder: Where the environment is made.
        borrow: Take the dependencies from the Python that runs this.
        torch_index: Package index to install torch from first, such as the one with builds for CPUs.

    Returns:
        Its folder of programs.
    """
    venv.create(folder, with_pip=True)
    programs = folder / "bin"
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if borrow:
        lent = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (site,) = folder.glob("lib/python*/site-packages")
        (site / "borrowed.pth").write_text("\n".join(lent) + "\n")
    elif torch_index:
        subprocess.run([*pip, "torch", "--index-url", torch_index], check=True)
    subprocess.run([*pip, *(["--no-deps", "--no-index"] if borrow else []), wheel], check=True)
    return programs


def use(programs: Path, block: str, folder: Path) -> None:
    """Run what the README shows first, in an empty folder, without the network.

    Args:
        programs: Folder of the environment's programs.
        block: A Python program.
        folder: Where it runs; it is made.

    Raises:
        subprocess.CalledProcessError: If one of them fails.
        RuntimeError: If the package that answers is another than the installed one, or a run leaves no records.
    """
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    environment |= {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1"}
    python = str(programs / "python")

    def run(*words: str) -> str:
        start = time.monotonic()
        done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        print(f"{time.monotonic() - start:5.1f} s  {Path(words[0]).name} {words[1]} ...", flush=True)
        return done.stdout

    home = Path(run(python, "-c", "import hf_smoothing; print(hf_smoothing.__file__)").strip())
    if not home.is_relative_to(programs.parent):
        raise RuntimeError(f"The package must be the one that was installed in {programs.parent}, got {home}.")
    run(str(programs / "hf-smoothing"), "--help")
    print(run(str(programs / "hf-smoothing"), *DEMO))
    print(run(python, "-c", block))
    if not list(folder.glob("runs/demo-*/*/certificates-0.jsonl")):
        raise RuntimeError(f"The demo must leave certificates below {folder / 'runs'}, got none.")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--borrow", action="store_true", help="dependencies of the Python that runs this")
    parser.add_argument("--torch-index", help="package index to install torch from")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wheel = args.wheel.resolve()
        programs = install(wheel, Path(folder) / "fresh", borrow=args.borrow, torch_index=args.torch_index)
        use(programs, first_block(wheel), Path(folder) / "empty")
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, installed and used.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
