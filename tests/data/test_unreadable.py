"""An image that cannot be read is named by index and file, nothing done before is lost, and it can be left out and counted."""

import errno
import io

import datasets
import numpy as np
import PIL.Image
import pytest

from hf_smoothing import PixelDataset, PixelStream, certify_dataset, read_run
from hf_smoothing.interval import certify_dataset_linf
from hf_smoothing.pixels import UnreadableImageError
from hf_smoothing.records import RunError, keep_run
from hf_smoothing.reports import report
from tests.support.classifiers import RUN, Ranges, results
from tests.support.tiny import SIZE, pil_images, smoothed


def encoded(image, kind="PNG"):
    raw = io.BytesIO()
    image.save(raw, kind)
    return raw.getvalue()


GOOD = [encoded(image) for image in pil_images(6)]
JPEG = encoded(PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
DAMAGED = {
    "truncated": {"bytes": JPEG[: len(JPEG) // 2], "path": "damaged.jpg"},
    "empty": {"bytes": b"", "path": "damaged.png"},
    "text": {"bytes": b"<html>not found</html>", "path": "damaged.png"},
    "broken png": {"bytes": GOOD[0][:40] + b"\0" * 40 + GOOD[0][80:], "path": "damaged.png"},
    "missing file": {"bytes": None, "path": "/nowhere/damaged.png"},
    "none": None,
    "16 bits": {
        "bytes": encoded(PIL.Image.fromarray(np.full((SIZE, SIZE), 40_000, dtype=np.uint16))),
        "path": "damaged.png",
    },
    "floats": {
        "bytes": encoded(PIL.Image.fromarray(np.full((SIZE, SIZE), 0.5, dtype=np.float32)), "TIFF"),
        "path": "damaged.tif",
    },
}


def images(damaged, at=2, count=6):
    rows = [{"bytes": raw, "path": f"{place}.png"} for place, raw in enumerate(GOOD[:count])]
    rows[at] = damaged
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "eel"])}
    )
    labels = [place % 3 for place in range(count)]
    return datasets.Dataset.from_dict({"image": rows, "label": labels}, features=features)


@pytest.fixture(params=DAMAGED)
def broken(request):
    return images(DAMAGED[request.param])


NAMED = r"Image 2 (\(.*damaged.*\) )?of column 'image' cannot be read: .*skip_unreadable=True"


def test_it_is_named(broken):
    made = PixelDataset(broken, SIZE)
    assert made[1]["pixel_values"].shape == (3, SIZE, SIZE)
    for reading in (lambda: made[2], lambda: made.decode(progress=False), lambda: list(PixelStream(broken, SIZE))):
        with pytest.raises(UnreadableImageError, match=NAMED) as caught:
            reading()
        assert caught.value.index == 2


@pytest.mark.parametrize("processes", [1, 2])
def test_it_is_left_out_and_counted(broken, processes):
    made = PixelDataset(broken, SIZE, skip_unreadable=True)
    decoded = made.decode(progress=False, processes=processes)
    assert decoded.labels.tolist() == [0, 1, 0, 1, 2] and len(decoded) == 5
    assert list(made.unreadable) == [2]
    stream = PixelStream(broken, SIZE, skip_unreadable=True)
    assert [index for index, _ in stream.numbered()] == [0, 1, 3, 4, 5]
    assert len(list(stream)) == 5
    some = made.decode(progress=False, indices=[5, 2, 0])
    assert some.labels.tolist() == [2, 0]
    with pytest.raises(UnreadableImageError):
        made.decode(progress=False, indices=[2])


@pytest.mark.parametrize("kind", [PixelDataset, PixelStream])
def test_a_run_leaves_it_out_and_keeps_the_numbers_of_the_others(broken, kind, tmp_path):
    whole = certify_dataset(
        Ranges(), kind(images({"bytes": GOOD[2], "path": "2.png"}), SIZE), tmp_path / "whole", **RUN
    )
    made = kind(broken, SIZE, skip_unreadable=True)
    run = certify_dataset(Ranges(), made, tmp_path / "run", **RUN)
    expected = results(whole)
    del expected[2]
    assert results(run) == expected
    assert run.settings["informative"]["unreadable"] == [2]
    assert "5 images of" in report([tmp_path / "run"])
    assert "1 of 6 left out since they cannot be read" in report([tmp_path / "run"])
    assert "unfinished" not in report([tmp_path / "run"])
    again = certify_dataset(Ranges(), kind(broken, SIZE, skip_unreadable=True), tmp_path / "run", **RUN)
    assert results(again) == expected


def test_a_list_is_refused_before_the_first_draw(broken, tmp_path):
    with pytest.raises(UnreadableImageError, match=NAMED):
        certify_dataset(Ranges(), PixelDataset(broken, SIZE), tmp_path / "run", **RUN)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UnreadableImageError, match=NAMED):
        certify_dataset_linf(smoothed("resnet"), PixelDataset(broken, SIZE), tmp_path / "run", largest=0.1)
    assert not (tmp_path / "run").exists()


def test_a_stream_is_done_up_to_it_and_goes_on(broken, tmp_path):
    with pytest.raises(UnreadableImageError, match=rf"{NAMED}.* 2 of all images are done and kept in"):
        certify_dataset(Ranges(), PixelStream(broken, SIZE), tmp_path, **RUN)
    kept = results(read_run(tmp_path))
    assert sorted(kept) == [0, 1]
    run = certify_dataset(Ranges(), PixelStream(broken, SIZE, skip_unreadable=True), tmp_path, **RUN)
    assert sorted(run.rows) == [0, 1, 3, 4, 5]
    assert {index: results(run)[index] for index in kept} == kept


def test_the_last_image_of_a_selection_from_a_stream_may_be_unreadable(broken, tmp_path):
    made = PixelStream(broken, SIZE, skip_unreadable=True)
    run = certify_dataset(Ranges(), made, tmp_path / "run", indices=[0, 1, 2], **RUN)
    assert sorted(run.rows) == [0, 1]
    assert run.settings["informative"]["unreadable"] == [2]
    assert "unfinished" not in report([tmp_path / "run"])
    keep_run(tmp_path / "run", tmp_path / "kept")
    made = PixelStream(images(DAMAGED["text"], at=5), SIZE, skip_unreadable=True)
    assert sorted(certify_dataset(Ranges(), made, tmp_path / "last", indices=[4, 5], **RUN).rows) == [4]


def test_interval_certificates_leave_it_out(broken, tmp_path):
    made = PixelDataset(broken, SIZE, skip_unreadable=True)
    run = certify_dataset_linf(smoothed("resnet"), made, tmp_path, largest=0.05, progress=False)
    assert sorted(run.rows) == [0, 1, 3, 4, 5] and run.images_asked == 5
    assert run.settings["informative"]["unreadable"] == [2]


def test_interval_certificates_of_repaired_images_are_unfinished_until_stated(broken, tmp_path, monkeypatch):
    def killed(*args, **facts):
        raise KeyboardInterrupt

    whole, options = (
        PixelDataset(images({"bytes": GOOD[2], "path": "2.png"}), SIZE),
        {"largest": 0.05, "progress": False},
    )
    some = PixelDataset(broken, SIZE, skip_unreadable=True)
    assert certify_dataset_linf(smoothed("resnet"), some, tmp_path, **options).finished
    with monkeypatch.context() as patched:
        patched.setattr("hf_smoothing.interval.runner.state_images", killed)
        with pytest.raises(KeyboardInterrupt):
            certify_dataset_linf(smoothed("resnet"), whole, tmp_path, **options)
    left = read_run(tmp_path)
    assert "sha256" not in left.settings["dataset"] and "unreadable" not in left.settings["informative"]
    run = certify_dataset_linf(smoothed("resnet"), whole, tmp_path, **options)
    assert run.finished and sorted(run.rows) == list(range(6)) and "sha256" in run.settings["dataset"]


@pytest.mark.parametrize("kind", [PixelDataset, PixelStream])
def test_a_run_goes_on_when_it_is_repaired(broken, kind, tmp_path):
    whole = kind(images({"bytes": GOOD[2], "path": "2.png"}), SIZE)
    some = kind(broken, SIZE, skip_unreadable=True)
    assert certify_dataset(Ranges(), some, tmp_path, **RUN).images_asked == 5
    run = certify_dataset(Ranges(), whole, tmp_path, **RUN)
    assert run.finished and run.images_asked == 6 and "unreadable" not in run.settings["informative"]
    with pytest.raises(RunError, match="Image 2 of the (stream|data set) cannot be read any more"):
        certify_dataset(Ranges(), kind(broken, SIZE, skip_unreadable=True), tmp_path, **RUN)


def test_a_selection_of_nothing_else_is_refused(tmp_path):
    made = PixelDataset(images(DAMAGED["text"]), SIZE, skip_unreadable=True)
    with pytest.raises(ValueError, match="none of those chosen can be read. Image 2"):
        certify_dataset(Ranges(), made, tmp_path / "run", indices=[2], **RUN)


def test_an_image_of_too_many_pixels_is_named(monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UnreadableImageError, match="Image 0 .*exceeds limit of 20 pixels"):
        PixelDataset(images(DAMAGED["none"]), SIZE)[0]


@pytest.mark.parametrize(
    ("error", "damaged"),
    [
        (ConnectionResetError("gone"), False),
        (TimeoutError("late"), False),
        (OSError(errno.EMFILE, "too many open files"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (OSError("image file is truncated"), True),
        (SyntaxError("broken PNG file"), True),
        (PIL.UnidentifiedImageError("cannot identify"), True),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_lost_connection_is_no_damage(error, damaged, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    made = PixelDataset(images(DAMAGED["none"]), SIZE, skip_unreadable=True)
    monkeypatch.setattr(PIL.Image, "open", fails)
    with pytest.raises(UnreadableImageError if damaged else type(error)):
        made[0]
    assert list(made.unreadable) == ([0] if damaged else [])


def test_other_ways_to_hold_an_image():
    expected = PixelDataset([{"image": pil_images(1)[0]}], SIZE)[0]["pixel_values"]
    for value in ({"bytes": GOOD[0], "path": None}, {"bytes": GOOD[0]}, GOOD[0]):
        assert (PixelDataset([{"image": value}], SIZE)[0]["pixel_values"] == expected).all()
    whole = images({"bytes": GOOD[2], "path": "2.png"})
    undecoded = whole.cast_column("image", datasets.Image(decode=False))
    assert (PixelDataset(undecoded, SIZE)[0]["pixel_values"] == expected).all()
    with pytest.raises(
        ValueError, match=r"Image 0 .* is the text 'a.png'. .*cast_column\('image', datasets.Image\(\)\)"
    ):
        PixelDataset([{"image": "a.png"}], SIZE)[0]


def test_a_lazy_image_of_a_list_is_named(tmp_path):
    (tmp_path / "damaged.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    with (
        PIL.Image.open(tmp_path / "damaged.jpg") as lazy,
        pytest.raises(
            UnreadableImageError, match=r"Image 0 \(.*damaged.jpg\) of column 'image' cannot be read: .*truncated"
        ),
    ):
        PixelDataset([{"image": lazy}], SIZE)[0]
