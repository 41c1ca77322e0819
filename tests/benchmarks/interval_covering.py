"""What covering float32 runs takes from the radii of interval bounds, written to docs/results/interval.json.

python tests/benchmarks/interval_covering.py model_cards/cnn7-linf-cifar10 --dataset path/to/cifar10 --largest 0.0345098
"""

from pathlib import Path

import torch
from datasets import load_dataset
from interval import parser_of
from results import record

from hf_smoothing import PixelDataset, SmoothedClassifier
from hf_smoothing.interval import linf_certificates


STRIDE = 50
CASES = {"intervals": (200, "none"), "with CROWN-IBP": (40, "crown-ibp")}
"""Number of images, and which bounds are used."""


def main() -> None:
    args = parser_of(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    model = SmoothedClassifier.from_pretrained(args.model).eval()
    test = load_dataset(args.dataset, split="test")
    images = PixelDataset(test.select(range(0, len(test), STRIDE)), model.config.size).decode().pixels.float() / 255
    found = {}
    for name, (count, backward) in CASES.items():
        radii = {
            covered: linf_certificates(
                model, images[:count], largest=args.largest, cover_run=covered, backward=backward
            )[1]
            for covered in (False, True)
        }
        real, runs = (radii[covered].median().item() for covered in (False, True))
        found[name] = {"images": count, "real_arithmetic": round(real, 6), "float32_runs": round(runs, 6)}
    record(
        "interval", "median_radius", found, seed=None, model=Path(args.model).name, stride=STRIDE, threads=args.threads,
        command=f"python tests/benchmarks/interval_covering.py {args.model} --dataset path/to/{Path(args.dataset).name} --largest {args.largest}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
