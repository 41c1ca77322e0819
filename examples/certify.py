"""Certify a data set with a saved classifier and score it with `evaluate`.

    python examples/certify.py --model runs/finetuned --dataset examples/data --sigma 0.25 --n 1000 --output_dir runs/certified

The same, without Python: `hf-smoothing certify` and `hf-smoothing report`. A run that was cut off is resumed by the same command;
under `torchrun` or `accelerate launch` the ranks share the draws.
"""

from dataclasses import dataclass, field

import evaluate
from datasets import load_dataset
from transformers import HfArgumentParser

from hf_smoothing import PixelDataset, SmoothedClassifier, certified_accuracy_path, certify_dataset
from hf_smoothing.certification import process_state
from hf_smoothing.report import columns


@dataclass
class Arguments:
    """What is certified, and how."""

    model: str = field(metadata={"help": "Hub id or folder of a SmoothedClassifier."})
    dataset: str = field(metadata={"help": "Hub id or folder of an image data set with labels."})
    output_dir: str = field(metadata={"help": "The run folder."})
    sigma: float = field(default=0.25, metadata={"help": "Noise standard deviation, [0, 1] pixel units."})
    n: int = field(default=100_000, metadata={"help": "Estimation draws an image, at most."})
    alpha: float = field(default=0.001, metadata={"help": "Failure probability of one certificate."})
    split: str = field(default="test", metadata={"help": "Split of the data set."})
    stride: int = field(default=1, metadata={"help": "Every so many-th image."})
    seed: int = field(default=0, metadata={"help": "Of the noise."})


def main() -> None:
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    state = process_state()

    model = SmoothedClassifier.from_pretrained(args.model).to(state.device).eval()
    images = load_dataset(args.dataset, split=args.split)
    pixels = PixelDataset(images, model.config.size, id2label=model.config.id2label)
    run = certify_dataset(
        model, pixels, args.output_dir,
        sigma=args.sigma, n=args.n, alpha=args.alpha, seed=args.seed, indices=range(0, len(pixels), args.stride),
        description={"model": {"id": args.model}, "dataset": {"id": args.dataset, "split": args.split}},
    )  # fmt: skip

    if state.is_main_process:
        predictions, references, radii = columns(run)
        metric = evaluate.load(certified_accuracy_path())
        print(metric.compute(predictions=predictions, references=references, radii=radii, n=args.n))


if __name__ == "__main__":
    main()
