"""Certify a data set with a saved classifier and score it with `evaluate`.

    python examples/certify.py --model runs/finetuned --dataset examples/data --sigma 0.25 --n 1000 --output-dir runs/certified

The same, without Python: `hf-smoothing certify` and `hf-smoothing report`. A run that was cut off is resumed by the same command;
under `torchrun` or `accelerate launch` the ranks share the draws. It needs the extra `evaluate`.
"""

from dataclasses import dataclass, field

import evaluate
from transformers import HfArgumentParser

from hf_smoothing import SmoothedClassifier, certified_accuracy_path, certify_dataset
from hf_smoothing.certification import process_state
from hf_smoothing.cli.explained import explained
from hf_smoothing.cli.parsing import parse_dataclasses
from hf_smoothing.cli.places import check_places
from hf_smoothing.data import DataChoice
from hf_smoothing.data.opening import choice_text, chosen_images, open_pixels
from hf_smoothing.reports import columns


@dataclass
class Arguments:
    """What is certified, and how."""

    model: str = field(metadata={"help": "Hub id or folder of a SmoothedClassifier."})
    output_dir: str = field(metadata={"help": "The run folder."})
    sigma: float = field(default=0.25, metadata={"help": "Noise standard deviation, [0, 1] pixel units."})
    n: int = field(default=100_000, metadata={"help": "Maximum number of estimation draws per image."})
    alpha: float = field(default=0.001, metadata={"help": "Failure probability of one certificate."})
    seed: int = field(default=0, metadata={"help": "Seed of the noise generator."})


def main() -> None:
    args, choice = parse_dataclasses(HfArgumentParser((Arguments, DataChoice)))
    check_places(args.output_dir, choice.dataset, args.model)
    state = process_state()

    model = SmoothedClassifier.from_pretrained(args.model).to(state.device).eval()
    pixels = open_pixels(choice, model, model.config.id2label)
    if pixels.label_column is None:
        raise SystemExit(
            f"{choice.dataset} has no clear label column, so that nothing can be scored. Pass --label_column."
        )
    indices = chosen_images(choice, pixels)
    if state.is_main_process:
        print(choice_text(choice, pixels, indices), flush=True)
    run = certify_dataset(
        model, pixels, args.output_dir,
        sigma=args.sigma, n=args.n, alpha=args.alpha, seed=args.seed, indices=indices,
        description={"model": {"id": args.model}, "dataset": choice.to_dict()},
    )  # fmt: skip

    if state.is_main_process:
        predictions, references, radii = columns(run)
        metric = evaluate.load(certified_accuracy_path())
        print(metric.compute(predictions=predictions, references=references, radii=radii, n=args.n))


if __name__ == "__main__":
    explained(main)
