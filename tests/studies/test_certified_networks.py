"""Names of trained networks, and what is kept of their settings."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.studies.certified_networks import LOSSES, NetworkName, check_settings, trained
from hf_smoothing.records import read_json, write_json


NUMBERS = st.sampled_from([0.0, 1e-5, 0.004, 0.25, 0.5, 1.0])


@given(st.sampled_from(sorted(LOSSES)), st.sampled_from(["adaptive", "fixed"]), NUMBERS, NUMBERS, st.integers(0, 99))
def test_a_folder_says_what_it_holds(loss, kind, strength, kappa, seed):
    name = NetworkName(kind, kappa, seed, loss, None if loss == "interval" else strength)
    assert NetworkName.read(str(name)) == name


def test_other_folders_are_left_alone(tmp_path):
    for folder in (
        "adaptive-kappa0-seed0",
        "sabr-fixed-share0.4-kappa0-seed0",
        "fixed-kappa0-seed1",
        "old",
        "run-kappa1-seed2",
    ):
        (tmp_path / folder / "model").mkdir(parents=True)
        (tmp_path / folder / "model" / "config.json").touch()
    (tmp_path / "fixed-kappa0-seed3").mkdir()  # not trained yet
    found = ["adaptive-kappa0-seed0", "sabr-fixed-share0.4-kappa0-seed0", "fixed-kappa0-seed1"]
    assert [str(name) for name in trained(tmp_path)] == found


@pytest.mark.parametrize(("kind", "loss"), [("own", "interval"), ("fixed", "ibp")])
def test_unknown_kinds_and_losses_are_refused(kind, loss):
    with pytest.raises(ValueError, match="Radii are adaptive or fixed, and the loss is one of interval"):
        NetworkName(kind, 0.0, 0, loss)


def test_settings_of_the_loss_belong_to_the_network(tmp_path):
    check_settings({"epochs": 1}, tmp_path / "a", {"steps": 2})
    own = check_settings({"epochs": 1}, tmp_path / "a")  # whatever its own loss was trained with
    assert own == {"steps": 2}
    said = NetworkName("fixed", 0.0, 0, "sabr", 0.4).to_dict(own)
    assert said == {"kind": "fixed", "kappa": 0.0, "seed": 0, "loss": "sabr", "strength": 0.4, "settings": own}
    assert NetworkName("fixed", 0.0, 0).to_dict({}) == {"kind": "fixed", "kappa": 0.0, "seed": 0}
    assert read_json(tmp_path / "a" / "settings.json") == {"epochs": 1, "loss": {"steps": 2}}
    with pytest.raises(SystemExit, match="loss.steps was 2, is 3"):
        check_settings({"epochs": 1}, tmp_path / "a", {"steps": 3})
    (tmp_path / "b").mkdir()
    write_json(tmp_path / "b" / "settings.json", {"epochs": 1})  # written before there were other losses
    check_settings({"epochs": 1}, tmp_path / "b", {})
    assert read_json(tmp_path / "b" / "settings.json") == {"epochs": 1}
