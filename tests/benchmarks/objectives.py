"""What a training step of each objective costs beside plain noise training, written to docs/results/training_methods.json and the cards.

    python tests/benchmarks/objectives.py [--threads 2] [--rounds 5] [--steps 3]

The small ResNet, batches of 64 images of 32 px resized to 64, float32, the settings of docs/objectives.md; the denoiser is the one of
`denoised_classifier` by default, LoRA has rank 1 in the convolutions, and masked denoising is measured beside noise training of a small transformer with the same
encoder. In each round all take their turn, and each is divided by that round's plain noise training of its network.
"""

import ast
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from networks import NETWORKS
from results import asked, record
from transformers import ViTConfig, ViTForImageClassification, ViTMAEConfig, ViTMAEForPreTraining

from hf_smoothing import NoiseMixture, SmoothedClassifier, denoised_classifier
from hf_smoothing.models import add_lora
from hf_smoothing.preprocessing import Preprocessing
from hf_smoothing.training import Batch, ObjectiveState
from hf_smoothing.training.objectives import OBJECTIVES, Network, Objective, find_objective


PAGE = Path(__file__).resolve().parents[2] / "docs" / "objectives.md"
BATCH = 64


def cards() -> dict[str, dict]:
    """Settings by name, as the cards of the page give them to the Trainer."""
    page = PAGE.read_text(encoding="utf-8").partition("## Methods without training")[0]
    found = re.findall(r'objective="([\w-]+)"(?:,\s*objective_args=(\{.*?\}))?', page, flags=re.DOTALL)
    return {name: ast.literal_eval(text) if text else {} for name, text in found}


@dataclass
class Case:
    """What is timed, and what it is divided by."""

    objective: Objective
    network: Network
    baseline: str = "mixture"


def cases(settings: dict[str, dict]) -> dict[str, Case]:
    """By the name that its place in the page has."""
    model = small()
    found = {name: Case(find_objective(name, OBJECTIVES, own), of(model)) for name, own in settings.items()}
    found["smoothadv-ddn"] = Case(
        find_objective("smoothadv", OBJECTIVES, settings["smoothadv"] | {"attack": "ddn"}), of(model)
    )
    denoised = denoised_classifier(small(), sigma=0.25).train()
    denoised.base_network.network.requires_grad_(False)
    for name, own in (("denoising", {}), ("denoising-stability", {"mse": 0.0, "stability": 1.0})):
        found[name] = Case(find_objective("denoising", OBJECTIVES, own), of(denoised))
    adapted = small()
    add_lora(adapted, rank=1, target_modules=["convolution"])
    found["lora"] = Case(find_objective("mixture", OBJECTIVES), of(adapted))
    return found | transformers_cases()


def transformers_cases() -> dict[str, Case]:
    """Masked denoising, and noise training of a classifier with its encoder."""
    encoder = {
        "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512, "image_size": 32, "patch_size": 4,
    }  # fmt: skip
    decoder = {
        "decoder_hidden_size": 64, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4, "decoder_intermediate_size": 256,
    }  # fmt: skip
    prepare = Preprocessing((0.5,) * 3, (0.25,) * 3)
    classifier = ViTForImageClassification(ViTConfig(**encoder, num_labels=10)).train()
    autoencoder = ViTMAEForPreTraining(ViTMAEConfig(**encoder, **decoder)).train()

    def network(module: torch.nn.Module) -> Network:
        return Network(module, lambda x, **more: module(pixel_values=prepare(x), **more).logits, prepare)

    return {
        "transformer": Case(find_objective("mixture", OBJECTIVES), network(classifier), "transformer"),
        "masked-denoising": Case(find_objective("masked-denoising", OBJECTIVES), network(autoencoder), "transformer"),
    }


def small() -> SmoothedClassifier:
    return NETWORKS["resnet-small"]().train()


def of(model: SmoothedClassifier) -> Network:
    return Network(model, model.classify)


def seconds(case: Case, steps: int) -> float:
    """Forward, backward and update."""
    trained = [parameter for parameter in case.network.module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, 1e-6)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(steps):
        batch = Batch(torch.rand(BATCH, 3, 32, 32), torch.arange(BATCH) % 10)
        loss, _ = case.objective(case.network, batch, ObjectiveState(NoiseMixture((0.25,)), generator, progress=0.5))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began


def main() -> None:
    args = asked(__doc__, rounds=5, steps=3)
    settings = cards()
    timed = cases(settings)
    ratios: dict[str, list[float]] = {name: [] for name in timed}
    for number in range(args.rounds + 1):
        taken = {name: seconds(case, args.steps) for name, case in timed.items()}
        for name, case in timed.items():
            if number:  # the first round warms up
                ratios[name].append(taken[name] / taken[case.baseline])
    medians = {name: round(statistics.median(found), 1) for name, found in ratios.items()}
    text = PAGE.read_text(encoding="utf-8")
    for name, value in medians.items():
        text = re.sub(rf"(<!-- cost {name} -->).*?(<!-- end -->)", rf"\g<1>, {value} times measured\g<2>", text)
    PAGE.write_text(text, encoding="utf-8")
    record(
        "training_methods", "cost_of_a_step", medians, seed=0,
        command=f"python tests/benchmarks/objectives.py --threads {args.threads} --rounds {args.rounds} --steps {args.steps}",
        ratios={name: [round(r, 2) for r in found] for name, found in ratios.items()}, settings=settings, batch_size=BATCH, threads=args.threads,
        dtype="float32",
    )  # fmt: skip


if __name__ == "__main__":
    main()
