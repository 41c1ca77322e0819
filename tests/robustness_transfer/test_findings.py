"""What the records of an analysis say: verdicts, pairings and too few images."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_smoothing.attacks import ATTACKS
from hf_smoothing.robustness_transfer import findings, words
from hf_smoothing.robustness_transfer.answer import answer, questions
from hf_smoothing.robustness_transfer.findings import robustness, universal
from hf_smoothing.robustness_transfer.records import Key, bits, from_bits, pair_key
from hf_smoothing.robustness_transfer.sentences import sentences
from hf_smoothing.robustness_transfer.settings import ROLES
from hf_smoothing.statistics import Paired


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


def verdict_of(records, beginning):
    (row,) = (row for row in questions(records) if row[0].startswith(beginning))
    return row


def test_a_network_that_is_better_at_all_frequencies_does_not_rely_more_on_high_ones():
    rng = np.random.default_rng(0)
    shares = {"finetuned": {"low": 0.7, "high": 0.63}, "standard": {"low": 0.5, "high": 0.5}}

    def records(shares):
        return {Key("frequency", role): {part: [{"right": bits(rng.random(2000) < share)}] for part, share in parts.items()} for role, parts in shares.items()}  # fmt: skip

    found = records(shares)
    assert "on high frequencies alone the finetuned network is right more often" in sentences(found)["frequency"]
    assert verdict_of(found, "Does it rely more on high than on low frequencies")[2] == "no, less"
    assert "it relies less on high frequencies than the standard one" in sentences(found)["frequency"]
    shares["finetuned"]["low"] = 0.5
    assert verdict_of(records(shares), "Does it rely more on high")[2] == "yes"
    shares["finetuned"]["high"] = 0.5
    found = records(shares)
    assert verdict_of(found, "Does it rely more on high")[2] == "no significant difference"
    assert "no significant difference in how much the two rely on high frequencies" in sentences(found)["frequency"]


@pytest.mark.parametrize(("l2", "verdicts"), [(0.4, ["no significant difference", "yes"]), (0.0, ["no significant difference"] * 2)])  # fmt: skip
def test_universal_perturbations_of_each_norm_are_answered_for(l2, verdicts):
    def changed(share):
        return {"epsilon": 0.03, "changed": {"finetuned": bits(np.arange(400) < 400 * share), "standard": "0" * 400}}

    records = {Key("universal", source, norm=norm): changed(share) for norm, source, share in (("linf", "pretrained", 0.0), ("linf", "random", 0.0), ("l2", "pretrained", l2), ("l2", "random", 0.0))}  # fmt: skip
    assert [row[2] for row in questions(records)] == verdicts
    assert [row[0].split()[1] for row in questions(records)] == ["linf", "l2"]
    said = sentences(records)["universal l2"]
    assert ("a sign that it has kept what fools the pretrained network, in this norm alone" in said) == (l2 > 0)


@pytest.mark.parametrize(
    ("near", "count", "verdict"),
    [
        ([0.9, None, None], "1 of 3 layers (2 without a number)", "in part"),
        ([0.1, None, None], "0 of 3 layers (2 without a number)", "not determined"),
        ([None, None, None], "0 of 3 layers (3 without a number)", "not determined"),
        ([0.9, 0.9, 0.9], "3 of 3 layers", "yes"),
        ([0.1, 0.1, 0.1], "0 of 3 layers", "no"),
        ([0.9, 0.1, 0.1], "1 of 3 layers", "in part"),
    ],
)
def test_layers_without_a_number_are_counted_and_decide_nothing(near, count, verdict):
    def pair(values):
        return {"images": 400, "cka": np.diag([np.nan if v is None else v for v in values]).tolist()}

    records = {
        Key("similarity", "clean"): {"pretrained-finetuned": pair(near), "pretrained-standard": pair([0.1] * 3)}
    }
    row = verdict_of(records, "Does it see more")
    assert f"in {count};" in row[1] and row[2] == verdict
    assert sentences(records)["similarity"].startswith(f"In {count} the finetuned network sees")


@pytest.mark.parametrize(("attacks", "said"), [(1, ""), (2, " The same holds under 1 of 1 other attack."), (4, " The same holds under 3 of 3 other attacks.")])  # fmt: skip
def test_an_attack_does_not_count_itself(attacks, said):
    rng = np.random.default_rng(0)
    curves = {"finetuned": record(rng, (0.9, 0.3, 0.1)), "standard": record(rng, (0.7, 0.5, 0.3))}
    names = ["pgd", "fgsm", "bim", "mi-fgsm"][:attacks]
    records = {Key("attack", role, name, "linf"): curve for name in names for role, curve in curves.items()}
    assert answer(records).split("without an attack.")[1] == said
    assert ("uncorrected" in sentences(records)["robustness"]) == (attacks > 1)


@pytest.mark.parametrize("question", words._ROWS)
def test_every_question_has_different_words_for_every_verdict(question):
    differences = [None, *(Paired(value, 0.0, 0.0, p, 100) for value, p in ((-0.1, 0.01), (0.1, 0.01), (0.1, 0.5)))]
    verdicts = {findings.verdict_of(difference) for difference in differences}
    assert verdicts == set(words.VERDICTS)
    assert len({words.in_words(question, verdict, sign="a sign") for verdict in verdicts}) == len(verdicts)
