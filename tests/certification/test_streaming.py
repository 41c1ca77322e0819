"""Images that can only be read in order are certified as those of a list, and checked when a run goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from hf_smoothing import PixelDataset, PixelStream
from hf_smoothing.certification import certify_dataset
from hf_smoothing.records import RunError, keep_run, read_run
from hf_smoothing.reports import report
from hf_smoothing.reports.card import check_finished
from tests.support.classifiers import RUN, SEQUENTIAL, Failing, Linear, Ranges, random_dataset, random_images, results
from tests.support.tiny import NAMES, SIZE, data, image_dataset, pil_images, pixels, smoothed


DATASET = random_dataset(6)


class Stream:
    """Can be read, and nothing else."""

    def __init__(self, items) -> None:
        self.items, self.passes, self.read = items, 0, 0

    def __iter__(self):
        self.passes += 1
        for item in self.items:
            self.read += 1
            yield item


def test_a_stream_has_the_certificates_of_the_list(tmp_path, kind):
    classifier, arguments, expected = kind
    run = certify_dataset(classifier, Stream(DATASET), tmp_path, **arguments)
    assert results(run) == results(expected)
    assert run.settings["num_images"] is None and run.finished
    assert run.settings["dataset"]["sha256"] == run.images_sha256 == expected.settings["dataset"]["sha256"]
    noise = ("noise_kind", "noise_dtype", "noise_drawn_by", "total_variation")
    assert {key: run.settings[key] for key in noise} == {key: expected.settings[key] for key in noise}
    assert len({row["image_sha256"] for row in run.rows.values()}) == 6


@pytest.mark.parametrize("indices", [range(1, 6, 2), [5, 1, 3], np.array([1, 3, 5])], ids=["range", "list", "numpy"])
def test_chosen_images_of_a_stream(tmp_path, kind, indices):
    classifier, arguments, expected = kind
    run = certify_dataset(classifier, Stream(DATASET), tmp_path, **arguments, indices=indices)
    assert results(run) == {index: results(expected)[index] for index in (1, 3, 5)}
    assert run.settings["num_images"] == 3


def test_a_stream_is_read_no_further_than_needed(tmp_path):
    def endless():
        yield from DATASET
        raise AssertionError("read on after the last image asked for")

    class Endless:
        def __iter__(self):
            return endless()

    assert sorted(certify_dataset(Ranges(), Endless(), tmp_path, **RUN, indices=range(5)).rows) == list(range(5))


def test_a_long_stream_is_not_kept_in_memory(tmp_path):
    """The window is 64 to 512 images; when the first are done, the stream must not have been read to its end."""
    stream = Stream(random_dataset(1500))
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Linear(), 40), stream, tmp_path, **SEQUENTIAL)
    assert read_run(tmp_path).rows
    assert stream.read < 700


@pytest.mark.parametrize("batches", [0, 3, 20, 70])
def test_an_interrupted_stream_resumes(tmp_path, whole, batches):
    with pytest.raises(KeyboardInterrupt, match="of all images are done"):
        certify_dataset(Failing(Ranges(), batches), Stream(DATASET), tmp_path, **RUN, partial_seconds=0)
    with open(tmp_path / "certificates-0.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"index": 5, "lab')
    resumed = certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN)
    assert results(resumed) == results(whole)
    again = certify_dataset(Failing(Ranges(), 0, AssertionError), Stream(DATASET), tmp_path, **RUN)
    assert results(again) == results(resumed), "nothing was left to do"


OTHERS = random_dataset(6, seed=1)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        (lambda: DATASET[::-1], 0),
        (lambda: [DATASET[0], DATASET[2], DATASET[1], *DATASET[3:]], 1),
        (lambda: [*DATASET[:2], OTHERS[2], *DATASET[3:]], 2),
        (lambda: [{**item, "pixel_values": item["pixel_values"].float() / 255} for item in DATASET], 0),
    ],
    ids=["reversed", "swapped", "another image", "another dtype"],
)
@pytest.mark.parametrize("batches", [40, 1000])
def test_resuming_with_another_stream_is_refused_naming_the_image(tmp_path, change, first, batches):
    try:
        options = {**RUN, "copies_per_batch": 30, "partial_seconds": 0}
        certify_dataset(Failing(Ranges(), batches), Stream(DATASET), tmp_path, **options)
    except KeyboardInterrupt:
        assert {0, 1, 2} <= {*read_run(tmp_path).rows, *read_run(tmp_path).partials}
    before = (tmp_path / "certificates-0.jsonl").read_bytes()
    with pytest.raises(RunError, match=f"Image {first} of the stream is not the one that this run has certified"):
        certify_dataset(Failing(Ranges(), 0, AssertionError), Stream(change()), tmp_path, **RUN)
    assert (tmp_path / "certificates-0.jsonl").read_bytes() == before


def test_a_list_does_not_resume_a_stream_nor_a_stream_a_list(tmp_path):
    certify_dataset(Ranges(), Stream(DATASET), tmp_path / "stream", **RUN)
    certify_dataset(Ranges(), DATASET, tmp_path / "list", **RUN)
    with pytest.raises(RunError, match="num_images was None, is 6"):
        certify_dataset(Ranges(), DATASET, tmp_path / "stream", **RUN)
    with pytest.raises(RunError, match="num_images was 6, is None"):
        certify_dataset(Ranges(), Stream(DATASET), tmp_path / "list", **RUN)


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        ([], {}, "The stream ended after 0 images, so there is none to certify"),
        ([], {"indices": [0]}, "The stream ended after 0 images, but image 0 was asked for"),
        (DATASET, {"indices": []}, "the selection is empty"),
        (DATASET, {"indices": [-1]}, "`indices` must be numbers of images, counted from 0, got -1"),
        (DATASET, {"indices": [1, 1]}, "`indices` must name each image once"),
        (DATASET, {"indices": [6]}, "The stream ended after 6 images, but image 6 was asked for"),
        ([{"labels": 1}], {}, "must be a mapping with 'pixel_values'"),
        ([{"pixel_values": torch.full((1, 4, 4), 2.0)}], {}, "`image 0` must hold pixels"),
        (
            [{"pixel_values": image} for image in random_images(2)],
            {"noise_kind": "grid"},
            "Grid noise certifies 8-bit images",
        ),
    ],
)
def test_what_the_first_image_of_a_stream_tells_leaves_no_folder(tmp_path, items, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        certify_dataset(Ranges(), Stream(items), tmp_path / "run", **RUN, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("label", [2, None])
@pytest.mark.parametrize("finished", [True, False])
def test_another_label_is_not_called_another_image(tmp_path, finished, label):
    try:
        certify_dataset(
            Failing(Ranges(), 1000 if finished else 1), Stream(DATASET), tmp_path, **RUN, partial_seconds=0
        )
    except KeyboardInterrupt:
        assert 0 in read_run(tmp_path).partials
    there = DATASET[0]["labels"]
    here = "no label" if label is None else f"label {label}"
    message = f"Image 0 of the stream is the one that this run has certified, but the label changed: it has {here} here and label {there} there"
    with pytest.raises(RunError, match=message):
        certify_dataset(Ranges(), Stream([{**DATASET[0], "labels": label}, *DATASET[1:]]), tmp_path, **RUN)


def named(dataset, model="net"):
    return {"description": {"model": {"id": model}, "dataset": {"id": dataset}}}


@pytest.mark.parametrize("batches", [20, 1000])
def test_a_stream_goes_on_wherever_it_lies(tmp_path, whole, batches):
    """Its recorded images are compared one by one, so its name decides nothing."""
    try:
        options = {**RUN, "partial_seconds": 0, **named("a")}
        certify_dataset(Failing(Ranges(), batches), Stream(DATASET), tmp_path, **options)
    except KeyboardInterrupt:
        assert read_run(tmp_path).partials
    before = (tmp_path / "certificates-0.jsonl").read_bytes()
    with pytest.raises(RunError, match="Image 0 of the stream is not the one"):
        certify_dataset(Failing(Ranges(), 0, AssertionError), Stream(OTHERS), tmp_path, **RUN, **named("b"))
    assert (tmp_path / "certificates-0.jsonl").read_bytes() == before
    run = certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, **named("b"))
    assert results(run) == results(whole) and run.settings["dataset"]["id"] == "a"


def test_where_no_hash_is_known_a_path_is_the_same_however_it_is_written(tmp_path):
    """A function has no hash of what it is, nor a stream before an image is recorded."""
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), 0), Stream(DATASET), tmp_path, **RUN, **named("a", "a"))
    with pytest.raises(RunError, match="dataset.id was 'a', is 'b'"):
        certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, **named("b", "a"))
    for name in ("a", "./a/", "a//"):
        certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, **named(name, name))
    with pytest.raises(RunError, match="model.id was 'a', is 'b'"):
        certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, **named("a", "b"))


def test_a_stream_that_ends_before_the_last_image_asked_for(tmp_path):
    with pytest.raises(ValueError, match="The stream ended after 6 images, but image 8 was asked for"):
        certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, indices=range(9))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"pixel_values": random_images(1)[0], "labels": 0}, "Grid noise certifies 8-bit images"),
        ({"pixel_values": torch.full((1, 4, 4), torch.nan), "labels": 0}, "`image 3` must hold finite pixels"),
        (random_dataset(1, (1, 5, 5))[0], r"must have one size and channel count, got \(1, 4, 4\) and, for image 3"),
        ({"pixel_values": DATASET[0]["pixel_values"], "labels": 0.5}, "labels of image 3"),
    ],
    ids=["off the grid", "nan", "another size", "label"],
)
def test_a_bad_image_later_in_the_stream(tmp_path, whole, bad, message):
    # Met when the window comes to it; repaired, the run goes on.
    with pytest.raises(ValueError, match=message):
        certify_dataset(Ranges(), Stream([*DATASET[:3], bad, *DATASET[4:]]), tmp_path, **RUN, partial_seconds=0)
    assert results(certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN)) == results(whole)


def test_the_report_copes_with_an_unknown_number_of_images(tmp_path, whole):
    run = certify_dataset(
        Ranges(), Stream(DATASET), tmp_path / "run", **RUN, description={"dataset": {"id": "toys", "split": "test"}}
    )
    text = report([run.path], output_dir=tmp_path / "out")
    assert "toys test" in text and "unfinished" not in text
    assert text.splitlines()[4].rstrip(" |").endswith("| 6")
    settings = json.loads((run.path / "run.json").read_text())
    assert settings["num_images"] is None and settings["informative"]["num_images"] == 6


def test_a_stream_whose_end_was_not_reached_is_unfinished_everywhere(tmp_path, whole):
    """Also where no partial row tells: how many images a stream holds is known at its end alone."""
    folder, done = tmp_path / "run", 3
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), 0), Stream(DATASET), folder, **RUN)
    certify_dataset(Ranges(), Stream(DATASET), tmp_path / "whole", **RUN)
    rows = (tmp_path / "whole" / "certificates-0.jsonl").read_text().splitlines(keepends=True)
    (folder / "certificates-0.jsonl").write_text("".join([row for row in rows if '"partial"' not in row][:done]))
    run = read_run(folder)
    assert not run.finished and run.images_asked is None
    text = report([run.path], output_dir=tmp_path / "out", html=True)
    page = (tmp_path / "out" / "report.html").read_text()
    for shown in (text, page):
        assert f"{done} of ? (unfinished)" in shown and "no random sample" in shown and "None images" not in shown
    with pytest.raises(RunError, match=rf"must be finished to be kept, got {done} of \? images"):
        keep_run(run.path, tmp_path / "kept")
    with pytest.raises(RunError, match=rf"must be finished to stand in a card, got {done} of \? images"):
        check_finished(run)
    # The same command again reaches the end; after that all is as with a list.
    again = certify_dataset(Ranges(), Stream(DATASET), run.path, **RUN)
    assert again.finished and results(again) == results(whole)
    check_finished(again)
    keep_run(run.path, tmp_path / "kept")
    assert read_run(tmp_path / "kept").finished
    assert "unfinished" not in report([run.path])
    file = run.path / "certificates-0.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[1:]))
    assert read_run(run.path).progress == "5 of 6", "a row that was lost is missed"


# --- Found broken ----------------------------------------------------------------------------------------------------


def test_a_generator_is_refused_or_certified_whole(tmp_path, whole):
    try:
        run = certify_dataset(Ranges(), (item for item in DATASET), tmp_path, **RUN)
    except (TypeError, ValueError):
        return
    assert results(run) == results(whole)


def test_a_pixel_stream_over_a_generator_is_refused_or_whole():
    source = [{"image": image, "label": 0} for image in pil_images(5)]
    try:
        stream = PixelStream(iter(source), SIZE)
    except (TypeError, ValueError):
        return
    assert len(list(stream)) == 5


def test_an_empty_pixel_stream_is_explained():
    with pytest.raises(ValueError, match="empty"):
        PixelStream([], SIZE)


def test_resuming_a_stream_with_other_indices_is_refused(tmp_path):
    certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, indices=[0, 1, 2])
    with pytest.raises(RunError):
        certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, indices=[3, 4, 5])


def test_a_stream_and_a_list_of_the_same_images_share_a_table(tmp_path):
    certify_dataset(Ranges(), Stream(DATASET), tmp_path / "a", **RUN)
    certify_dataset(Ranges(), DATASET, tmp_path / "b", **RUN)
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(Ranges(), 40), Stream(DATASET), tmp_path / "c", **RUN, partial_seconds=0)
    assert report([tmp_path / "a", tmp_path / "b"]).count("| model") == 1
    # How many images the third holds is not known yet.
    assert "compared: number of images: 6 / not stated." in report([tmp_path / "a", tmp_path / "c"])


def test_two_streams_of_other_images_do_not_share_a_table(tmp_path):
    for name, items in (("a", DATASET), ("b", OTHERS)):
        certify_dataset(Ranges(), Stream(items), tmp_path / name, **RUN)
    text = report([tmp_path / "a", tmp_path / "b"])
    assert "must not be compared" in text


def test_the_caption_does_not_speak_of_none(tmp_path):
    certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN)
    assert "None" not in report([tmp_path])


def test_a_torch_iterable_with_a_length_is_a_stream(tmp_path, whole):
    class Counted(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(DATASET)

        def __len__(self):
            return len(DATASET)

    assert results(certify_dataset(Ranges(), Counted(), tmp_path, **RUN)) == results(whole)


def test_a_stream_that_has_become_shorter_is_refused(tmp_path):
    certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN)
    with pytest.raises(ValueError, match="stream"):
        certify_dataset(Ranges(), Stream(DATASET[:3]), tmp_path, **RUN)


class Numbered(Stream):
    """Leaves out what it cannot read, which keeps its number."""

    def __init__(self, items, unreadable=()) -> None:
        super().__init__(items)
        self.unreadable = dict.fromkeys(unreadable, "broken")

    def numbered(self):
        yield from ((index, item) for index, item in enumerate(self) if index not in self.unreadable)


FEWER = {"grown": (Stream(DATASET[:4]), 4), "healed": (Numbered(DATASET, (1, 4)), 4)}


@pytest.mark.parametrize("change", FEWER)
def test_a_finished_stream_that_gives_more_images_goes_on(tmp_path, kind, change):
    classifier, arguments, expected = kind
    stream, count = FEWER[change]
    first = certify_dataset(classifier, stream, tmp_path, **arguments)
    assert first.finished and first.images_asked == count
    again = certify_dataset(classifier, Stream(DATASET), tmp_path, **arguments)
    assert again.finished and again.images_asked == 6 and results(again) == results(expected)
    assert again.settings["dataset"]["sha256"] == expected.settings["dataset"]["sha256"]
    assert "unreadable" not in again.settings["informative"] and "6 of" not in report([tmp_path])


@pytest.mark.parametrize("change", FEWER)
def test_a_kill_before_further_images_are_stated_leaves_an_unfinished_run(tmp_path, kind, change, monkeypatch):
    classifier, arguments, expected = kind

    def killed(*args, **facts):
        raise KeyboardInterrupt

    certify_dataset(classifier, FEWER[change][0], tmp_path, **arguments)
    with monkeypatch.context() as patched:
        patched.setattr("hf_smoothing.certification.runner.state_images", killed)
        with pytest.raises(KeyboardInterrupt):
            certify_dataset(classifier, Stream(DATASET), tmp_path, **arguments)
    left = read_run(tmp_path)
    assert len(left.rows) == 6 and not left.finished and left.images_asked is None and left.images_sha256 is None
    assert "6 of ? (unfinished)" in report([tmp_path])
    again = certify_dataset(classifier, Stream(DATASET), tmp_path, **arguments)
    assert again.finished and results(again) == results(expected)


def test_a_finished_stream_is_unfinished_from_the_first_further_draw(tmp_path, kind):
    classifier, arguments, expected = kind
    certify_dataset(classifier, Stream(DATASET[:4]), tmp_path, **arguments)
    with pytest.raises(KeyboardInterrupt):
        certify_dataset(Failing(classifier, 1), Stream(DATASET), tmp_path, **arguments, partial_seconds=0)
    assert not read_run(tmp_path).finished
    assert results(certify_dataset(classifier, Stream(DATASET), tmp_path, **arguments)) == results(expected)


def test_a_finished_run_that_is_called_again_writes_nothing(tmp_path, monkeypatch):
    certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN)
    before = (tmp_path / "run.json").stat()
    certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN)
    after = (tmp_path / "run.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("broken", [1, 5])
@pytest.mark.parametrize("indices", [None, [0, 1, 5]])
def test_a_recorded_image_of_a_stream_that_cannot_be_read_any_more(tmp_path, broken, indices):
    first = certify_dataset(Ranges(), Stream(DATASET), tmp_path, **RUN, indices=indices)
    with pytest.raises(RunError, match=f"Image {broken} of the stream cannot be read any more, but the run in .* has"):
        certify_dataset(Ranges(), Numbered(DATASET, (broken,)), tmp_path, **RUN, indices=indices)
    assert results(read_run(tmp_path)) == results(first)


# --- datasets.IterableDataset -----------------------------------------------------------------------------------------


def test_pixel_stream_of_a_datasets_iterable(tmp_path):
    source, model = image_dataset(6), smoothed("vit")
    options = {"sigma": 0.25, "n0": 5, "n": 40, "targets": [0.0, 0.05], "progress": False}
    expected = certify_dataset(model, PixelDataset(source, SIZE), tmp_path / "list", **options)
    stream = PixelStream(source.to_iterable_dataset(), SIZE)
    assert (stream.image_column, stream.label_column) == ("image", "label")
    run = certify_dataset(model, stream, tmp_path / "stream", **options)
    assert results(run) == results(expected)
    listed = list(PixelDataset(source, SIZE))
    for mine, theirs in zip(stream, listed, strict=True):
        assert torch.equal(mine["pixel_values"], theirs["pixel_values"]) and mine["labels"] == theirs["labels"]
    with pytest.raises(RunError, match=r"Image \d of the stream is not the one"):
        certify_dataset(
            model, PixelStream(source.to_iterable_dataset().shuffle(seed=3), SIZE), tmp_path / "stream", **options
        )


def test_pixel_stream_checks_as_pixel_dataset_does():
    source = image_dataset(3).to_iterable_dataset()
    with pytest.raises(ValueError, match="no column 'picture'"):
        PixelStream(source, SIZE, image_column="picture")
    with pytest.raises(ValueError, match="3 classes in the data set, 2 in the model"):
        PixelStream(source, SIZE, id2label={0: "cat", 1: "dog"})
    permuted = PixelStream(source, SIZE, id2label=dict(enumerate(("eel", "cat", "dog"))))
    assert [item["labels"] for item in permuted] == [1, 2, 0]
    # After a map the columns are not known in advance, and are read off the first row.
    mapped = PixelStream(source.map(lambda row: row), SIZE)
    assert [item["labels"] for item in mapped] == [0, 1, 2]
    assert len(list(mapped)) == 3 == len(list(mapped)), "it can be read again"
    assert len(data(3)) == len(pixels(3)) == len(NAMES)
