"""What the records of an analysis say: verdicts, pairings and too few images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.attacks import ATTACKS
from hf_smoothing.robustness_transfer.findings import robustness, universal
from hf_smoothing.robustness_transfer.records import Key, bits, from_bits, pair_key
from hf_smoothing.robustness_transfer.sentences import sentences
from hf_smoothing.robustness_transfer.settings import ROLES


@given(
    st.builds(
        Key,
        st.just("attack"),
        st.sampled_from(ROLES),
        st.sampled_from(sorted(ATTACKS)),
        st.sampled_from(["linf", "l2"]),
    )
    | st.builds(Key, st.just("universal"), st.sampled_from([*ROLES, "random"]), norm=st.sampled_from(["linf", "l2"]))
    | st.builds(Key, st.just("similarity"), st.sampled_from(["clean", "attacked", "universal"]))
    | st.builds(Key, st.just("frequency"), st.sampled_from(ROLES))
)
def test_a_key_is_read_back_from_its_text(key):
    assert Key.parse(str(key)) == key


def record(rng, accuracies, count=400):
    """An attack's record in which each image falls at a radius of its own."""
    places = rng.permutation(count) / count
    return {"epsilons": [0.0, 0.1, 0.2], "right": [bits(places < accuracy) for accuracy in accuracies]}


def test_the_verdict_compares_what_both_get_right_without_an_attack():
    rng = np.random.default_rng(0)
    records = {
        Key("attack", "finetuned", "pgd", "linf"): record(rng, (0.9, 0.3, 0.1)),
        Key("attack", "standard", "pgd", "linf"): record(rng, (0.7, 0.5, 0.3)),
        Key("attack", "finetuned", "pgd", "l2"): record(rng, (0.9, 0.5, 0.2)),
        Key("attack", "standard", "pgd", "l2"): record(rng, (0.7, 0.39, 0.16)),
    }
    first, second = robustness(records)
    assert (first.norm, first.verdict) == ("linf", "less")
    assert (second.norm, second.verdict) == ("l2", "as")
    flags = [
        np.array([from_bits(row) for row in records[Key("attack", role, "pgd", "linf")]["right"]])
        for role in ("finetuned", "standard")
    ]
    both = flags[0][0] & flags[1][0]
    assert first.matched_images == both.sum()
    assert first.matched["finetuned"][2] == pytest.approx(flags[0][2][both].mean())
    assert first.decline["standard"][2] == pytest.approx((0.7 - 0.3) / 0.7)
    assert first.area["finetuned"] == pytest.approx((0.9 + 2 * 0.3 + 0.1) / 4)
    assert (
        "less robust than the standard one under pgd (linf); not significantly different from"
        in sentences(records)["robustness"]
    )


def test_what_is_carried_over_is_paired():
    rng = np.random.default_rng(0)
    base = rng.random(500)
    changed = {"pretrained": base < 0.9, "finetuned": base < 0.6, "standard": base < 0.5}
    noise = {"pretrained": base < 0.1, "finetuned": base < 0.15, "standard": base < 0.1}
    records = {
        Key("universal", source, norm="linf"): {
            "epsilon": 0.03,
            "changed": {role: bits(flags) for role, flags in flagged.items()},
        }
        for source, flagged in (("pretrained", changed), ("random", noise))
    }
    (found,) = universal(records)
    gains = [changed[target].mean() - noise[target].mean() for target in ("finetuned", "standard")]
    assert found.carried.value == pytest.approx(gains[0] - gains[1])
    assert found.carried.low > 0
    assert "more often than the standard one" in sentences(records)["universal linf"]
    assert json.dumps(list(records.values()))


def test_few_images_give_no_verdict():
    rng = np.random.default_rng(0)
    records = {
        Key("attack", "finetuned", "pgd", "linf"): record(rng, (1.0, 0.0, 0.0), count=20),
        Key("attack", "standard", "pgd", "linf"): record(rng, (1.0, 1.0, 1.0), count=20),
        **{
            Key("universal", source, norm="linf"): {"epsilon": 0.03, "changed": {"finetuned": a, "standard": "0000"}}
            for source, a in (("pretrained", "1111"), ("random", "0000"))
        },
        Key("similarity", "clean"): {
            pair: {"images": 16, "cka": [[value]]}
            for pair, value in ((pair_key("pretrained", "finetuned"), 0.9), (pair_key("pretrained", "standard"), 0.1))
        },
        **{
            Key("frequency", role): {part: [{"right": bits([role == "standard"] * 4)}] for part in ("low", "high")}
            for role in ("finetuned", "standard")
        },
    }
    said = sentences(records)
    assert "not judged, with fewer than 30 such images, under pgd (linf)" in said["robustness"]
    assert "was tried on too few images (fewer than 30) to say" in said["universal linf"]
    assert said["similarity"].startswith("CKA of 16 images is too noisy")
    assert "not judged, on fewer than 30 images" in said["frequency"]
