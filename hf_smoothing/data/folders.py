"""What `datasets` makes of a folder of images where that is not what its owner meant: folders that become no split, images that get no class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path


KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in the name of a folder by which `datasets` knows a split; it heeds their case."""

MEANT = {"train": ("seen", "trn"), "validation": (), "test": ("holdout", "heldout", "unseen", "tst")}
"""Further words by which people call a split."""

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def check_merged(path: str, split: str) -> str | None:
    """Refuse a folder of which images to train on and images to test on would be read as one split.

    Args:
        path: Hub id or folder.
        split: The split that was read.

    Returns:
        What to say of other folders that are read together, or not at all; None where there are none.

    Raises:
        ValueError: The message names the folders and the cure.
    """
    folders = _folders(path)
    splits, others = ([f.name for f in folders if (split_of(f.name) is not None) == known] for known in (True, False))
    if splits and others and not any(_children(folder) for folder in folders):
        return (
            f"The images of {_listed(others)} in {path} are not read: datasets takes {_listed(splits)} for {_are(splits, 'splits', 'a split')}. If all are classes, "
            "put them into one folder called 'train'."
        )
    if len(folders) < 2 or splits:
        return None
    missed = missed_splits(path)
    if len(missed) < 2:
        return None
    text = f"The images of {_listed(list(missed))} in {path} are read together, as the split {split!r}: {how_to_rename(path, missed)}"
    if any(missed.values()):
        raise ValueError(text)
    return text


def missed_splits(path: str) -> dict[str, str | None]:
    """Sub-folders of a folder of images that look like splits and are read as none -> which split each seems to be, where its name says it.

    Those whose name says it, and those that hold the same classes as another one.
    """
    folders = _folders(path)
    classes = {folder: {child.name for child in _children(folder)} for folder in folders}
    alike = {folder for pair in combinations(folders, 2) if classes[pair[0]] & classes[pair[1]] for folder in pair}
    found: dict[str, str | None] = {
        folder.name: _meant(folder.name)
        for folder in folders
        if split_of(folder.name) is None and (folder in alike or (_meant(folder.name) and classes[folder]))
    }
    if found or not folders or any(classes.values()):
        return found
    # Images right inside: a class may be called Train, among others.
    named: dict[str, str | None] = {
        folder.name: meant for folder in folders if split_of(folder.name) is None and (meant := _meant(folder.name))
    }
    return named if len(named) == len(folders) > 1 else {}


def how_to_rename(path: str, missed: dict[str, str | None]) -> str:
    """The cure for folders that are read as no split."""
    renamed = [f"{name!r} to {split!r}" for name, split in missed.items() if split]
    rest = [name for name, split in missed.items() if not split]
    cures = [f"rename {' and '.join(renamed)}"] if renamed else []
    if rest:
        cures.append(f"rename {_listed(rest)} to 'train', 'validation' or 'test' where {_are(rest)} that")
    held_out = next((name for name, split in missed.items() if split == "test"), next(iter(missed)))
    return (
        f"{_listed(list(missed))} {_are(list(missed), 'are', 'is')} not read as {_are(list(missed), 'splits', 'a split')}: {', and '.join(cures)}; or pass the one "
        f"folder as the data set, {os.path.join(path, held_out)!r}, with split='train'. Where they are classes, put them into one folder called 'train'."
    )


def _are(names: list[str], several: str = "they are", one: str = "it is") -> str:
    return several if len(names) > 1 else one


def split_of(name: str) -> str | None:
    """The split that `datasets` takes a folder of this name for."""
    words = re.split(r"[-._ 0-9]+", name)
    return next((split for split, known in KEYWORDS.items() if set(words) & {*known}), None)


def _meant(name: str) -> str | None:
    words = {re.sub(r"(set|data|images)$", "", word) for word in re.split(r"[-._ 0-9]+", name.casefold())}
    return next((split for split, known in KEYWORDS.items() if words & {*known, *MEANT[split]}), None)


def why_unlabelled(path: str) -> str:
    """Why a folder of images has no labels, with the cure; empty where it is none or that is not evident."""
    places = {Path(where): name for where, name in _images_below(path)}
    inside = [place.relative_to(path) for place in places]
    one, other = (f(places, key=lambda place: (len(place.parts), place), default=None) for f in (min, max))
    if one is None or other is None:
        return ""
    if len(one.parts) != len(other.parts):
        shown = [str((place / places[place]).relative_to(path)) for place in (one, other)]
        return (
            f"the images lie at different depths ({shown[0]} and {shown[1]}), of which datasets makes no labels. Put all at one depth, in one folder "
            "per class"
        )
    names = {place.name for place in inside}
    if len(names) == 1 and one != Path(path) and (len(inside[0].parts) > 1 or split_of(inside[0].name) is None):
        return (
            f"there is a single class, {names.pop()!r}, of which datasets makes no labels. Name it in a metadata.csv beside the images, with the columns "
            "file_name and label"
        )
    return "where they lie in a folder, sort the images into one sub-folder per class"


def innermost(path: str) -> str:
    """What to say where the folders of classes have folders below them; empty where that is not so."""
    splits = missed_splits(path)
    for where, _ in _images_below(path):
        parts = Path(where).relative_to(path).parts
        parts = parts[1:] if parts and (split_of(parts[0]) or parts[0] in splits) else parts
        if len(parts) > 1:
            return (
                f"The class of an image is the innermost folder, here {parts[-1]!r} of {'/'.join(parts)}: if {parts[-2]!r} is the class, move the images "
                "up into it."
            )
    return ""


def without_file_names(path: str) -> str | None:
    """What to say of metadata that names no files, or None where there is none."""
    for file in sorted(Path(path).rglob("metadata.*")) if Path(path).is_dir() else ():
        if file.suffix not in (".csv", ".jsonl", ".parquet"):
            continue
        head = ""
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", errors="replace") as lines:
                head = f", got the columns {lines.readline().strip()[:200]}"
        if "file_name" not in head:
            return (
                f"{file} must have a column file_name, the file of each image as seen from the folder of the metadata{head}. Rename the column that names the "
                "files."
            )
    return None


def _folders(path: str) -> list[Path]:
    """The folders inside a folder of images; none where a README says what its splits are."""
    readme = Path(path) / "README.md"
    if not Path(path).is_dir() or (readme.is_file() and "data_files" in readme.read_text("utf-8", "replace")):
        return []
    return [folder for folder in _children(Path(path)) if next(_images_below(folder), None)]


def _children(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and child.name[0] not in "._")


def _images_below(path: str | Path) -> Iterator[tuple[str, str]]:
    """Each folder with an image right inside, and the name of one."""
    for where, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if name[0] not in "._")
        if image := next((name for name in sorted(files) if name.lower().endswith(IMAGES)), None):
            yield where, image


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(map(repr, names[:-1])), repr(names[-1])]))
