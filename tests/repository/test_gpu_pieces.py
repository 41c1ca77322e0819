"""Pieces that travel to a machine without a network, and the wheels among them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from examples.gpu.pieces import MANIFEST, install, pack, unpack
from tests.support.processes import ROOT, run_python


def test_pieces_are_put_together_again(tmp_path):
    (tmp_path / "data" / "inner").mkdir(parents=True)
    (tmp_path / "data" / "inner" / "file").write_bytes(bytes(range(256)) * 10_000)
    pieces = pack({"set": tmp_path / "data"}, tmp_path / "pieces", piece_mib=1.0)
    assert len(pieces) == 3
    assert max(piece.stat().st_size for piece in pieces) <= 2**20
    elsewhere = tmp_path / "other"
    elsewhere.mkdir()
    pieces[1].rename(elsewhere / pieces[1].name)  # they may come in several folders
    unpack([tmp_path / "pieces", elsewhere], tmp_path / "out")
    restored = tmp_path / "out" / "set" / "inner" / "file"
    assert restored.read_bytes() == (tmp_path / "data" / "inner" / "file").read_bytes()
    restored.unlink()
    unpack([tmp_path / "pieces"], tmp_path / "out")  # was done: nothing is read again
    assert not restored.exists()


def test_missing_and_damaged_pieces_are_named(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"x" * 3_000_000)
    pieces = pack({"set": tmp_path / "data"}, tmp_path / "pieces", piece_mib=1.0)
    pieces[1].write_bytes(b"other")
    with pytest.raises(ValueError, match="piece-001 is damaged"):
        unpack([tmp_path / "pieces"], tmp_path / "out")
    pieces[1].unlink()
    with pytest.raises(ValueError, match="piece-001 is missing"):
        unpack([tmp_path / "pieces"], tmp_path / "out")
    with pytest.raises(ValueError, match=f"must hold {MANIFEST}"):
        unpack([tmp_path / "data"], tmp_path / "out")
    with pytest.raises(ValueError, match="Folders to pack must exist, got .*nowhere"):
        pack({"set": tmp_path / "nowhere"}, tmp_path / "pieces")
    with pytest.raises(ValueError, match="positive number of MiB"):
        pack({"set": tmp_path / "data"}, tmp_path / "pieces", piece_mib=0)


def make_wheel(folder, version, answer):
    """A wheel of one module."""
    wheel = folder / f"nothing_much-{version}-py3-none-any.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("nothing_much.py", f"ANSWER = {answer}\n")
        info = f"nothing_much-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: nothing-much\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


def test_wheels_among_the_pieces_are_installed(tmp_path):
    wheel = make_wheel(tmp_path / "wheels", "1.0", 42)
    link = tmp_path / "links"
    link.mkdir()
    (link / wheel.name).symlink_to(wheel)  # as in the cache of the Hub
    pack({"wheels": link}, tmp_path / "pieces")
    unpack([tmp_path / "pieces"], tmp_path / "out")
    install(tmp_path / "out")
    assert (tmp_path / "out" / "site" / "nothing_much.py").read_text() == "ANSWER = 42\n"
    install(tmp_path)  # nothing to install
    done = run_python(
        ROOT / "examples" / "gpu" / "pieces.py", str(tmp_path / "wheels"), str(tmp_path / "b"), cwd=tmp_path
    )
    assert done.returncode == 1 and done.stderr.startswith("pieces: One of the folders must hold pieces.json")


def test_newer_wheels_replace_older_ones(tmp_path):
    out = tmp_path / "out"
    for version, answer in (("1.0", 42), ("2.0", 43)):
        make_wheel(tmp_path / version, version, answer)
        pack({"wheels": tmp_path / version}, tmp_path / f"pieces-{version}")
        unpack([tmp_path / f"pieces-{version}"], out)
        install(out)
    assert (out / "site" / "nothing_much.py").read_text() == "ANSWER = 43\n"
    (out / "site" / "mark").touch()
    install(out)  # has been done
    assert (out / "site" / "mark").exists()


def test_wheels_are_installed_wholly_or_not_at_all(tmp_path, monkeypatch):
    make_wheel(tmp_path / "wheels", "1.0", 42)
    (tmp_path / MANIFEST).write_text("{}")

    def interrupted(command, check):
        target = Path(command[command.index("--target") + 1])
        target.mkdir()
        (target / "half").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("subprocess.run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            install(tmp_path)
    assert not (tmp_path / "site").exists()
    install(tmp_path)
    assert (tmp_path / "site" / "nothing_much.py").exists() and not (tmp_path / "site" / "half").exists()
