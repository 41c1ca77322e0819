"""Fronts of clean against certified accuracy: who is on them, what they dominate, and how sure that is."""

import json

import numpy as np
import pytest

from examples.studies import fronts
from examples.studies.tradeoff import add, table


def bits(right, certified):
    """`fronts.packed` of columns of yes and no."""
    return {
        "images": len(right),
        "right": np.packbits(np.array(right, bool)).tobytes().hex(),
        "certified": np.packbits(np.array(certified, bool)).tobytes().hex(),
    }


def network(right, certified, images=1000, loss=None, kind="fixed", strength=0.5, seed=0, held_out=None, offset=0):
    """The first images right and certified, from an offset on; held-out images alike, or with shares of their own."""
    shown = (np.arange(images) - offset) % images
    held = held_out or (right, certified)
    own = {} if loss is None else {"loss": loss, "strength": strength}
    return own | {
        "kind": kind, "kappa": 0.0, "seed": seed, "at": 0.3, "backward": "crown", "images": images,
        "test": bits(shown < right * images, shown < certified * images),
        "held_out": bits(np.arange(100) < 100 * held[0], np.arange(100) < 100 * held[1]),
        "right": {"0": round(right * images), "0.3": round(certified * images)},
    }  # fmt: skip


def test_bits_survive():
    right = np.random.default_rng(0).random(13) < 0.5
    assert (fronts.unpacked(bits(right, ~right)) == np.stack([right, ~right])).all()


def test_hypervolume_is_the_area_that_points_dominate():
    generator = np.random.default_rng(0)
    for _ in range(20):
        points = generator.random((5, 2))
        samples = generator.random((20_000, 2))
        dominated = (samples[:, None] <= points).all(2).any(1).mean()
        assert fronts.hypervolume(points) == pytest.approx(dominated, abs=0.02)
        assert fronts.hypervolume(points[fronts.on_front(points)]) == pytest.approx(fronts.hypervolume(points))
    several = generator.random((3, 4, 5, 2))
    assert fronts.hypervolume(several).shape == (3, 4)
    assert fronts.hypervolume(several)[1, 2] == pytest.approx(fronts.hypervolume(several[1, 2]))


def test_held_out_images_choose_and_test_images_measure():
    networks = [
        network(0.9, 0.2, loss="sabr", strength=0.1),
        network(0.6, 0.5, loss="sabr", strength=0.5),
        network(
            0.95, 0.9, loss="sabr", strength=0.9, held_out=(0.5, 0.4)
        ),  # the best on test images, which nobody knows
    ]
    found = fronts.fronts(networks)["SABR, fixed"]
    assert [n["strength"] for n in found["chosen"]] == [0.1, 0.5]
    assert found["hypervolume"] == pytest.approx(0.9 * 0.2 + 0.6 * 0.3)


def test_verdicts_follow_the_intervals():
    networks = [
        network(0.9, 0.5, loss="sabr"),
        network(0.9, 0.8, loss="mtl-ibp"),
        network(0.9, 0.8, loss="mtl-ibp", kind="adaptive", offset=7),
        network(0.5, 0.4, seed=0),
        network(0.7, 0.6, seed=1),
    ]
    text = fronts.texts(networks)
    assert "| IBP, fixed | 50.0/40.0, 70.0/60.0 | 31.0 (" in text["fronts"]  # the mean of 20 and 42
    assert text["fronts"].splitlines()[2].endswith("| 2 |")
    assert "| SABR, fixed | MTL-IBP, fixed | lower, -27.0 [-" in text["front pairs"]
    assert "| MTL-IBP, adaptive | MTL-IBP, fixed | no significant difference, +0.0 [-" in text["front pairs"]
    assert len(text["front pairs"].splitlines()) == 2 + 6
    row = fronts.listed_points(networks, {"width": 8, "epochs": 10})[1]
    assert row == {"method": "MTL-IBP, fixed", "tradeoff": 0.5, "seed": 0, "clean": 90.0, "certified": 80.0, "bound": "crown", "width": 8, "epochs": 10, "images": 1000}  # fmt: skip
    assert "ACR" not in table(networks)
    assert "certified at 0.3" in table(networks)


def test_the_picture_and_the_published_points(tmp_path):
    assert fronts.published("path/to/mnist", 0.3) == "mnist 0.3"
    assert fronts.published("cifar10", 2 / 255) is None  # as the command line has it
    assert fronts.published("cifar10", 0.0078431) == "cifar10 0.0078431"
    fronts.plot([network(0.9, 0.5), network(0.8, 0.6, kind="adaptive")], tmp_path / "fronts.png", 0.3, "mnist 0.3")
    assert (tmp_path / "fronts.png").stat().st_size > 10_000


def test_the_points_of_two_schedules_stand_beside_each_other(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "interval.md").write_text("")

    def points(epochs, *certified, start_from=None):
        arguments = {"width": 8, "epochs": epochs, "start_from": start_from}
        found = {"dataset": "mnist", "arguments": arguments, "networks": [network(0.9, one) for one in certified]}
        add(tmp_path, f"after-{epochs}", found, tmp_path / "elsewhere")
        kept = json.loads((tmp_path / "results" / "linf_frontier.json").read_text())["mnist_0.3"]
        return [(point["epochs"], point["certified"]) for point in kept]

    assert points(70, 0.8) == [(70, 80.0)]
    assert points(10, 0.5, 0.6) == [(10, 50.0), (10, 60.0), (70, 80.0)]
    assert points(70, 0.7) == [(10, 50.0), (10, 60.0), (70, 70.0)]
    assert points(10, 0.9, start_from="models/a")[2:] == [(70, 70.0), (10, 90.0)]  # those that went on stand last
    assert points(10, 0.4)[0] == (10, 40.0) and points(10, 0.6, start_from="elsewhere/a")[2:] == [(10, 60.0)]


def test_networks_whose_folders_are_gone_stay_in_the_record(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "interval.md").write_text("<!-- table on networks -->\n<!-- end -->")

    def kept(*networks, epochs=10, torch="2.13.0"):
        found = {"dataset": "mnist", "arguments": {"width": 8, "epochs": epochs}, "torch": torch}
        add(tmp_path, "on", found | {"networks": list(networks)}, tmp_path / "elsewhere")
        after = json.loads((tmp_path / "results" / "interval.json").read_text())["on"]["networks"]
        points = json.loads((tmp_path / "results" / "linf_frontier.json").read_text())["mnist_0.3"]
        assert len([point for point in points if point["epochs"] == epochs]) == len(after)
        return [(one.get("loss"), one["seed"], one["right"]["0.3"]) for one in after]

    assert kept(network(0.9, 0.5, loss="sabr")) == [("sabr", 0, 500)]
    assert kept(network(0.9, 0.6)) == [(None, 0, 600), ("sabr", 0, 500)]
    assert kept(network(0.9, 0.7, loss="sabr"), network(0.9, 0.4, seed=1)) == [(None, 0, 600), ("sabr", 0, 700), (None, 1, 400)]  # fmt: skip
    assert kept(network(0.9, 0.3), torch="2.14.1") == [
        (None, 0, 300)
    ]  # measured otherwise: the earlier ones are not of one kind with it
    assert kept(network(0.9, 0.2, loss="sabr"), torch="2.14.1", epochs=20) == [("sabr", 0, 200)]
