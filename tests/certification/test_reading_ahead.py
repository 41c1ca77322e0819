"""Of many images only the first are read before the first draw; what a run folder says and refuses in the end is what it would if all were."""

from __future__ import annotations

import json

import pytest
from torch import nn

from hf_smoothing.certification import agreement, certify_dataset, completion
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.records import RunError, read_run
from hf_smoothing.reports import report
from tests.support.classifiers import KINDS, RUN, Failing, Ranges, random_dataset, results


WINDOW = 64
"""Images in work while there are enough of them."""

DATASET = random_dataset(12)


class Reading:
    """A data set that notes what is read of it, and may have damaged images."""

    def __init__(self, items, damaged=(), skip_unreadable=False):
        self.items, self.damaged, self.skip_unreadable = items, damaged, skip_unreadable
        self.read, self.unreadable = [], {}

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.read.append(index)
        if index in self.damaged:
            self.unreadable[index] = f"Image {index} is damaged."
            raise UnreadableImageError(index, None, self.unreadable[index])
        return self.items[index]


class Noting:
    """Ranges, noting how many images were read before the first forward pass."""

    def __init__(self, dataset):
        self.dataset, self.before, self.inner = dataset, None, Ranges()

    def __call__(self, pixels):
        if self.before is None:
            self.before = len(self.dataset.read)
        return self.inner(pixels)


@pytest.fixture
def two_ahead(monkeypatch):
    monkeypatch.setattr(agreement, "AHEAD", 2)


@pytest.fixture(params=KINDS)
def kind(request, tmp_path):
    classifier, arguments = KINDS[request.param]
    return classifier, arguments, certify_dataset(classifier, DATASET, tmp_path / "whole", **arguments)


def said(run):
    """All that `run.json` says but the moment."""
    return {**run.settings, "created": None}


def replaced(place, **change):
    return [{**item, **change} if index == place else item for index, item in enumerate(DATASET)]


def interrupted(folder, batches, dataset=DATASET, partial_seconds=0.0, **options):
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), batches), dataset, folder, **RUN, partial_seconds=partial_seconds, **options)
    return read_run(folder)


@pytest.mark.parametrize("count", [300, 600])
def test_the_first_draw_waits_for_as_many_images_however_many_there_are(count, tmp_path):
    dataset = Reading(random_dataset(count))
    classifier = Noting(dataset)
    run = certify_dataset(classifier, dataset, tmp_path, sigma=0.5, mode="fixed", n0=5, n=20, progress=False)
    assert classifier.before <= agreement.AHEAD + 1 + WINDOW
    assert len(run.rows) == count and len(dataset.read) <= count + agreement.AHEAD + 1


def test_float_images_are_all_looked_at_since_they_decide_the_noise(two_ahead, tmp_path):
    floats = [{**item, "pixel_values": item["pixel_values"].float() / 255} for item in DATASET]
    floats[9]["pixel_values"] = floats[9]["pixel_values"] * 0.999
    with pytest.warns(UserWarning, match="since image 9 lies"):
        run = certify_dataset(Ranges(), floats, tmp_path, **RUN)
    assert run.settings["noise_kind"] == "gaussian"


def test_rows_and_settings_are_those_of_a_run_that_reads_all_first(two_ahead, kind, tmp_path):
    classifier, arguments, whole = kind
    run = certify_dataset(classifier, DATASET, tmp_path / "run", **arguments)
    assert results(run) == results(whole) and said(run) == said(whole)


@pytest.mark.parametrize("batches", [0, 1, 7, 25])
def test_a_run_that_was_cut_off_ends_as_one_that_was_not(two_ahead, kind, batches, tmp_path):
    classifier, arguments, whole = kind
    for count in (batches, 3):
        with pytest.raises(KeyboardInterrupt):
            certify_dataset(Failing(classifier, count), DATASET, tmp_path / "run", **arguments, partial_seconds=0)
        assert "sha256" not in read_run(tmp_path / "run").settings["dataset"]
    run = certify_dataset(classifier, DATASET, tmp_path / "run", **{**arguments, "copies_per_batch": 7})
    assert results(run) == results(whole) and said(run)["dataset"] == said(whole)["dataset"]
    assert run.settings["num_images"] == 12


def test_a_kill_before_the_hash_of_all_is_stated_is_made_good(two_ahead, kind, tmp_path, monkeypatch):
    classifier, arguments, whole = kind

    def killed(folder, settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(completion, "write_settings", killed)
        with pytest.raises(KeyboardInterrupt):
            certify_dataset(classifier, DATASET, tmp_path / "run", **arguments)
    assert len(read_run(tmp_path / "run").rows) == 12
    run = certify_dataset(Failing(classifier, 0, AssertionError), DATASET, tmp_path / "run", **arguments)
    assert results(run) == results(whole) and said(run) == said(whole)


@pytest.mark.parametrize("batches", [1, 70])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": list(range(11))}, "num_images was 12, is 11"),
        ({"dataset": (item for item in DATASET)}, "must be one that can be read again"),
        ({"sigma": 0.25}, "sigma was 0.5, is 0.25"),
    ],
)
def test_another_selection_or_setting_is_refused(two_ahead, change, message, batches, tmp_path):
    kept = interrupted(tmp_path, batches)
    with pytest.raises(ValueError, match=message):
        certify_dataset(**{"classifier": Ranges(), "dataset": DATASET, "output_dir": tmp_path, **RUN, **change})
    assert results(read_run(tmp_path)) == results(kept)


@pytest.mark.parametrize("change", [{"pixel_values": DATASET[0]["pixel_values"]}, {"labels": 4}])
def test_another_image_than_a_row_names_is_refused_before_any_draw(two_ahead, change, tmp_path):
    kept = interrupted(tmp_path, 130)
    last = max(kept.rows.keys() | kept.partials.keys())
    assert last > agreement.AHEAD
    with pytest.raises(
        RunError,
        match=f"Image {last} of the data set is (not )?the one that the run in .* has certified(\\. Resume|, but the label changed: it has label 4 here)",
    ):
        certify_dataset(Failing(Ranges(), 0, AssertionError), replaced(last, **change), tmp_path, **RUN)
    gone = Reading(DATASET, damaged=[last], skip_unreadable=True)
    with pytest.raises(RunError, match=f"Image {last} of the data set .*cannot be read any more"):
        certify_dataset(Failing(Ranges(), 0, AssertionError), gone, tmp_path, **RUN)
    assert results(read_run(tmp_path)) == results(kept)


def test_a_finished_run_is_compared_as_a_whole(two_ahead, tmp_path):
    certify_dataset(Ranges(), DATASET, tmp_path, **RUN)
    with pytest.raises(RunError, match="Image 11 of the data set is the one .* but the label changed"):
        certify_dataset(Ranges(), replaced(11, labels=4), tmp_path, **RUN)


def test_images_that_cannot_be_read_are_left_out_as_they_are_reached(two_ahead, tmp_path):
    with pytest.raises(UnreadableImageError, match=r"Image 9 is damaged.* 9 of 12 images are done and kept"):
        certify_dataset(Ranges(), Reading(DATASET, damaged=[9]), tmp_path / "run", **RUN)
    run = certify_dataset(Ranges(), Reading(DATASET, [9], skip_unreadable=True), tmp_path / "run", **RUN)
    assert run.finished and run.images_asked == 11 and run.settings["informative"]["unreadable"] == [9]
    assert run.settings["num_images"] == 12 and run.settings["dataset"]["selection"] == {"range": [0, 12, 1]}
    again = Failing(Ranges(), 0, AssertionError)
    certify_dataset(again, Reading(DATASET, [9], skip_unreadable=True), tmp_path / "run", **RUN)
    readable = certify_dataset(Ranges(), Reading(DATASET, skip_unreadable=True), tmp_path / "run", **RUN)
    assert results(readable) == results(certify_dataset(Ranges(), DATASET, tmp_path / "whole", **RUN))
    assert readable.finished and "unreadable" not in readable.settings["informative"]


def test_labels_come_to_an_unfinished_run(two_ahead, tmp_path):
    whole = certify_dataset(Ranges(), DATASET, tmp_path / "whole", **RUN)
    unlabelled = [{"pixel_values": item["pixel_values"]} for item in DATASET]
    interrupted(tmp_path / "run", 130, unlabelled)
    run = certify_dataset(Ranges(), DATASET, tmp_path / "run", **RUN)
    assert results(run) == results(whole) and said(run) == said(whole)


def test_an_unfinished_run_shares_the_table_of_a_finished_one_on_the_same_images(two_ahead, tmp_path):
    certify_dataset(Ranges(), DATASET, tmp_path / "done", **{**RUN, "sigma": 0.25})
    interrupted(tmp_path / "begun", 130)
    interrupted(tmp_path / "other", 130, random_dataset(12, seed=1))
    sha256 = json.loads((tmp_path / "done" / "run.json").read_text())["dataset"]["sha256"]
    text = report([tmp_path / "done", tmp_path / "begun"])
    assert text.count("| model") == 1 and sha256[:8] in text and "of 12 (unfinished" in text
    assert report([tmp_path / "done", tmp_path / "other"]).count("| model") == 2


class Unsteady:
    """A data set or stream of which some images are others, or have other labels, from their second reading on."""

    def __init__(self, items, change, places=range(99)):
        self.items, self.change, self.places = items, change, places
        self.readings = dict.fromkeys(range(len(items)), 0)

    def item(self, index):
        self.readings[index] += 1
        later = index in self.places and self.readings[index] > 1
        return self.change(self.items[index]) if later else self.items[index]


class UnsteadyItems(Unsteady):
    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.item(index)


class UnsteadyStream(Unsteady):
    def __iter__(self):
        return (self.item(index) for index in range(len(self.items)))


CHANGES = {
    "pixels": lambda item: {**item, "pixel_values": item["pixel_values"].flip(-1)},
    "labels": lambda item: {**item, "labels": 1 - item["labels"]},
    "no label": lambda item: {"pixel_values": item["pixel_values"]},
}
FLOATS = [{**item, "pixel_values": item["pixel_values"].float() / 255} for item in DATASET]
UNSTEADY = "must stay as they are, but image {} has other pixels or another label than when it was read before"


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(
    ("kind", "items"),
    [(UnsteadyItems, DATASET), (UnsteadyItems, FLOATS), (UnsteadyStream, DATASET)],
    ids=["8-bit", "float", "stream"],
)
def test_images_that_change_between_two_readings_are_refused(kind, items, change, tmp_path):
    with pytest.raises(ValueError, match=UNSTEADY.format(0)):
        certify_dataset(Ranges(), kind(items, change), tmp_path, **RUN)
    assert not read_run(tmp_path).rows


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_each_image_that_was_read_ahead_is_compared(change, tmp_path):
    with pytest.raises(ValueError, match=UNSTEADY.format(9)):
        certify_dataset(Ranges(), UnsteadyItems(DATASET, change, places=[9]), tmp_path, **RUN)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_is_recorded_is_what_was_certified(two_ahead, change, tmp_path):
    dataset = UnsteadyItems(DATASET, change, places=range(3, 12))  # beyond what is read ahead, so each is read once
    run = certify_dataset(Ranges(), dataset, tmp_path, **RUN)
    assert max(dataset.readings[index] for index in dataset.places) == 1
    assert results(run) == results(certify_dataset(Ranges(), DATASET, tmp_path / "steady", **RUN))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_so_are_those_of_a_deterministic_run(change, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).eval()
    with pytest.raises(ValueError, match=UNSTEADY.format(3)):
        certify_dataset_linf(
            network, UnsteadyItems(DATASET, change, places=[3]), tmp_path, largest=0.1, batch_size=2, progress=False
        )
    assert 3 not in read_run(tmp_path).rows


@pytest.mark.parametrize("change", [CHANGES["pixels"], CHANGES["labels"]])
def test_so_are_those_that_labels_come_to(change, tmp_path):
    unlabelled = [{"pixel_values": item["pixel_values"]} for item in DATASET]
    before = certify_dataset(Ranges(), unlabelled, tmp_path, **RUN)
    with pytest.raises(ValueError, match=UNSTEADY.format(5)):
        certify_dataset(Ranges(), UnsteadyItems(DATASET, change, places=[5]), tmp_path, **RUN)
    assert results(read_run(tmp_path)) == results(before)
