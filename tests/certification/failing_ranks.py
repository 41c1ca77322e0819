"""Two ranks certify again and again in one process group, now and then with a fault on one of them; what each came to is printed.

The ranks go through one list of cases: an error that reaches one of them alone makes them fall out of step, and the next case hangs or mixes runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

from hf_smoothing.certification import agreement, certify_dataset, ranks, rounds
from hf_smoothing.certification import runner as smoothing_runner
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.interval import runner as interval_runner
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.records import Run, read_run
from tests.support.classifiers import SEQUENTIAL, Linear, random_dataset, results
from tests.support.forked_ranks import forked_ranks


METHODS = ("smoothing", "interval")
IMAGES = random_dataset(5)
RUNNERS = {"smoothing": smoothing_runner, "interval": interval_runner}
STEPS = {
    "arguments": {method: (module, "check_selection", (0, 1)) for method, module in RUNNERS.items()},
    "folder before": {method: (module, "check_writable", (0, 1)) for method, module in RUNNERS.items()},
    "survey": {"smoothing": (agreement, "survey", (0,)), "interval": (interval_runner, "survey", (0, 1))},
    "first images": {"smoothing": (smoothing_runner, "read_again", (1,))},
    "same network": {"smoothing": (smoothing_runner, "check_same", (1,))},
    "answer": {"interval": (interval_runner, "answer_to_probe", (0, 1))},
    "settings": {"interval": (interval_runner, "common_settings", (0, 1))},
    "labels": dict.fromkeys(METHODS, (ranks, "adopt_labels", (0,))),
    "writer": dict.fromkeys(METHODS, (ranks, "RunWriter", (0, 1))),
    "rows": {method: (module, "read_run", (0, 1)) for method, module in RUNNERS.items()},
    "recorded": {method: (module, "check_recorded", (0,)) for method, module in RUNNERS.items()},
    "work": {"smoothing": (rounds, "count_votes", (0, 1)), "interval": (interval_runner, "certificates_of", (0, 1))},
    "append": dict.fromkeys(METHODS, (ranks.RunWriter, "append", (0, 1))),
    "facts": {method: (module, "reading_facts", (0,)) for method, module in RUNNERS.items()},
    "statement": {method: (module, "state_images", (0,)) for method, module in RUNNERS.items()},
}
"""Steps of a run -> by method, what is called there and on which ranks."""
FAILING = [
    (method, step, rank) for step, places in STEPS.items() for method, place in places.items() for rank in place[2]
]


class Unreadable(list[dict[str, Any]]):
    """Images of which one is damaged, left out or not."""

    def __init__(self, images: list[dict[str, Any]], damaged: int, skip: bool) -> None:
        super().__init__(images)
        self.damaged, self.skip_unreadable, self.unreadable = damaged, skip, dict[int, str]()

    def __getitem__(self, index: Any) -> Any:
        if index == self.damaged:
            self.unreadable[index] = "damaged"
            raise UnreadableImageError(index, None, f"Image {index} is damaged.")
        return super().__getitem__(index)


class Stream:
    """Images in order, of which one is damaged or none."""

    def __init__(self, images: list[dict[str, Any]], damaged: int | None = None) -> None:
        self.images, self.damaged = images, damaged

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index, image in enumerate(self.images):
            if index == self.damaged:
                raise UnreadableImageError(index, None, f"Image {index} is damaged.")
            yield image


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    "order": (lambda: IMAGES[::-1], r"do not read the same images \(image 0 has other pixels on rank 1"),
    "other labels": (lambda: [*IMAGES[:4], {**IMAGES[4], "labels": 1}], r"image 4 has another label on rank 1 than on rank 0"),
    "pixels": (lambda: [*IMAGES[:4], {"labels": 0, "pixel_values": IMAGES[0]["pixel_values"]}], "image 4 has other pixels"),
    "shard": (lambda: IMAGES[:3], r"must be asked for the same, but indices\.range is \[0, \d, 1\] on rank 0 and \[0, \d, 1\] on rank 1"),
    "unlabelled": (lambda: [{"pixel_values": one["pixel_values"]} for one in IMAGES], "image 0 has another label"),
    "damaged": (lambda: Unreadable(IMAGES, 3, False), r"Image 3 is damaged"),
    "left out": (lambda: Unreadable(IMAGES, 3, True), r"rank \d: images that cannot be read: 3"),
}  # fmt: skip
"""What one rank reads in place of the images, and what is said of it on all."""
OTHER: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
    "smoothing": {
        "n": ({"n": 200}, r"rule\.n is \d+ on rank 0 and \d+ on rank 1"),
        "sigma": ({"sigma": 0.4}, "sigma is 0"),
        "seed": ({"seed": 7}, "seed is "),
        "dtype": ({"dtype": "bfloat16"}, "dtype is "),
    },
    "interval": {
        "largest": ({"largest": 0.2}, r"largest is 0\.\d on rank 0 and 0\.\d on rank 1"),
        "backward": ({"backward": "crown"}, "backward is "),
        "only right": ({"only_right": True}, "only_right is "),
        "tolerance": ({"tolerance": 1e-3}, "tolerance is "),
        "network": ({"seed_of_network": 5}, r"other settings than rank 0: model\.weights_sha256 was"),
    },
}
"""What one rank is asked for in place of the rest, and what is said of it on all."""
for _method in METHODS:
    OTHER[_method] |= {
        "indices": ({"indices": [0, 1]}, "indices"),
        "description": ({"description": {"host": "b"}}, r"description\.host is "),
    }


def certify(method: str, images: Any, folder: Path, *, seed_of_network: int = 0, **other: Any) -> Any:
    if method == "smoothing":
        return certify_dataset(Linear(), images, folder, **{**SEQUENTIAL, "n": 100, **other})
    torch.manual_seed(seed_of_network)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    return certify_dataset_linf(network, images, folder, **{"largest": 0.1, "progress": False, **other})


def same_rows(run: Run, alone: Run) -> bool:
    """Whether rows are those of one rank; another batch moves an interval radius by rounding and by the tolerance."""
    first, second = results(run), results(alone)
    radii = [(row["radius"], second[index]["radius"]) for index, row in first.items() if index in second]
    for one in (first, second):
        for row in one.values():
            row["radius"] = None
    return first == second and all(abs(one - other) <= 2e-8 for one, other in radii) and run.finished


def outcome(method: str, images: Any, folder: Path, **other: Any) -> str:
    """The number of rows, or the error."""
    try:
        return str(len(certify(method, images, folder, **other).rows))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def cases(rank: int, home: Path) -> Iterator[tuple[str, str]]:
    """Each case with what it came to on this rank."""
    for method, step, on in FAILING:
        name, (module, attribute, places) = f"{method} {step} {on}", STEPS[step][method]
        fault = mock.patch.object(module, attribute, side_effect=OSError(step))
        with fault if rank == on else contextlib.nullcontext():
            yield name, outcome(method, IMAGES, home / name)
        if on == places[-1]:
            yield f"after {method} {step}", well(method, home / f"after {name}", home)
    for method in METHODS:
        for on in (0, 1):
            for kind, (images, _) in WRONG.items():
                name = f"{method} {kind} {on}"
                yield name, outcome(method, images() if rank == on else IMAGES, home / name)
            for kind, (asked, _) in OTHER[method].items():
                name = f"{method} {kind} {on}"
                yield name, outcome(method, IMAGES, home / name, **(asked if rank == on else {}))
        yield f"after wrong {method}", well(method, home / f"after wrong {method}", home)
        copies = {part: {"id": f"/local/{rank}/{part}"} for part in ("model", "dataset")}
        yield f"own copies {method}", outcome(method, IMAGES, home / f"own copies {method}", description=copies)
    more = random_dataset(9)
    for on in (0, 1):
        name = f"smoothing grown {on}"
        certify("smoothing", Stream(IMAGES), home / name)
        yield name, outcome("smoothing", Stream(more if rank == on else IMAGES), home / name)
        yield f"resumed {name}", outcome("smoothing", Stream(more), home / name)
        name = f"smoothing last {on}"
        yield name, outcome("smoothing", Stream(IMAGES, 4 if rank == on else None), home / name)
        yield f"resumed {name}", outcome("smoothing", Stream(IMAGES), home / name)


def well(method: str, folder: Path, home: Path) -> str:
    """Whether a run without any fault comes to the rows of one rank, or its error."""
    said = outcome(method, IMAGES, folder)
    return said if said[0].isupper() else str(same_rows(read_run(folder), read_run(home / method)))


def main(home: Path) -> None:
    for method in METHODS:
        certify(method, IMAGES, home / method)

    def work(rank: int) -> None:
        ranks.PartialState._reset_state()
        (home / f"said-{rank}.json").write_text(json.dumps(dict(cases(rank, home))))

    children = forked_ranks(work)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
