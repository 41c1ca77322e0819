"""Which runs share a table: never two with different labels, and whatever the order in which they are named."""

import itertools

import pytest

from hf_smoothing.records import read_run, reading
from hf_smoothing.reports.grouping import Conditions, comparable, differing
from tests.support.written_runs import LINF, short_hash, written_run


LABELS, OTHERS = [0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]
NAMES = ["cat", "dog", "eel"]


def labelled(folder, labels, names=None):
    """A run of six images; of fewer labels it is unfinished, and None is no label."""
    rows = [(0 if label is None else label, 0, 0.5) for label in labels]
    written_run(folder, rows, num_images=6, informative={"class_names": names} if names else {})
    run = read_run(folder)
    for row, label in zip(run.rows.values(), labels, strict=True):
        if label is None:
            del row["label"]
    return run


def tables_of(runs):
    """The tables of runs in each order: the names of their runs, sorted; and what the report says of them."""
    for order in itertools.permutations(runs):
        groups = comparable(order)
        members = [run for group in groups.values() for run in group]
        places = {run.path: place for place, run in enumerate(order)}
        assert len(members) == len(order)
        for group in groups.values():
            assert [run.path for run in group] == sorted((run.path for run in group), key=places.__getitem__)
        assert [places[group[0].path] for group in groups.values()] == sorted(
            places[group[0].path] for group in groups.values()
        )
        yield sorted(sorted(run.path.name for run in group) for group in groups.values()), differing(groups)


@pytest.mark.parametrize("between", [LABELS[:3], [None] * 6, [None] * 3, [0, 1, 2, None, None, None]])
@pytest.mark.parametrize("name", ["0_first", "z_last"])
def test_a_run_that_agrees_with_two_others_does_not_join_them(between, name, tmp_path):
    runs = [labelled(tmp_path / "a", LABELS), labelled(tmp_path / "b", OTHERS), labelled(tmp_path / name, between)]
    found = list(tables_of(runs))
    assert len({str(tables) for tables, _ in found}) == 1
    for tables, said in found:
        assert len(tables) == 2 and ["a", "b"] not in tables
        assert "labels of idx 3: " in said


def test_a_run_with_names_joins_one_of_two_that_differ(tmp_path):
    reordered = [[2, 0, 1][label] for label in LABELS]
    runs = [
        labelled(tmp_path / "ints", LABELS),
        labelled(tmp_path / "named", LABELS, NAMES),
        labelled(tmp_path / "reordered", reordered, ["dog", "eel", "cat"]),
    ]
    assert {str(tables) for tables, _ in tables_of(runs)} == {str([["ints", "named"], ["reordered"]])}


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (NAMES, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (NAMES, ["0", "1", "2"]),
        (["0", "1", "2"], ["1", "2", "3"]),
        (["LABEL_0", "LABEL_1", "LABEL_2"], ["1", "2", "3"]),
        (NAMES, ["chat", "chien", "anguille"]),
        (["airplane", "automobile", "eel"], ["plane", "car", "eel"]),
        (NAMES, ["kitty", "dog", "eel"]),
        (["crane", "crane", "eel"], ["Crane", "Crane", "eel"]),
    ],
)
def test_equal_labels_are_equal_under_other_names(names, others, tmp_path):
    same = [
        labelled(tmp_path / name, LABELS, called) for name, called in zip("abc", (names, others, None), strict=True)
    ]
    assert all(tables == [["a", "b", "c"]] and not said for tables, said in tables_of(same))
    apart = [*same[:2], labelled(tmp_path / "d", OTHERS, others)]
    assert all(tables == [["a", "b"], ["d"]] and "labels of idx 3" in said for tables, said in tables_of(apart))


def test_an_unfinished_run_has_the_images_of_the_same_run_in_every_order(tmp_path):
    runs = [labelled(tmp_path / name, LABELS[:count]) for name, count in (("begun", 3), ("a", 6), ("b", 6))]
    for run in runs:
        run.settings["dataset"].pop("sha256", None)
        for index, row in run.rows.items():
            row["image_sha256"] = f"{index}{run.path.name if index > 2 else ''}"
    assert all(tables == [["a", "begun"], ["b"]] and "images: " in said for tables, said in tables_of(runs))


def test_a_truth_value_is_no_number_of_draws(tmp_path):
    """What a rule says yes or no to is not printed as 1 or 0; whether a run of the network is covered still keeps two tables apart."""
    flags = [{"covers_run": True}, {"covers_run": False}, {"covers_run": True, "only_right": True, "steps": 20}]
    runs = [
        read_run(written_run(tmp_path / str(k), **LINF | {"rule": LINF["rule"] | some}))
        for k, some in enumerate(flags)
    ]
    assert [Conditions.of(run).draws for run in runs] == [(), (), (("steps", 20),)]
    captions = [str(Conditions.of(run)) for run in runs]
    assert (
        captions[0]
        == f"linf one-sided radii; interval bounds; deterministic; 4 images of toys test ({short_hash()}); noise gaussian at 3x16x16"
    )
    assert "; interval bounds (steps = 20); " in captions[2]
    assert len(comparable(runs)) == 3 and "covers run: True / False" in differing(comparable(runs[:2]))


@pytest.mark.parametrize("finished", [True, False])
def test_runs_are_compared_in_pairs_only_where_they_differ(finished, tmp_path, monkeypatch):
    """A report of twice as many runs of the same images takes twice as long."""
    from hf_smoothing.reports import grouping

    calls = []
    for name in ("hash_of_images", "_hash", "_other_label", "_same_images"):
        module = reading if name == "hash_of_images" else grouping
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *given, original=original: (calls.append(1), original(*given))[1])
    runs = [labelled(tmp_path / str(number), LABELS[: 6 if finished else 4]) for number in range(16)]
    calls.clear()
    assert len(comparable(runs[:8])) == 1
    few = len(calls)
    assert len(comparable(runs)) == 1
    assert len(calls) - few <= 2 * few + 2
