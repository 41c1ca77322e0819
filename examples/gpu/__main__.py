"""The GPU kit: what a few minutes of one GPU are best spent on, in the order of worth, each stage resumable.

    python -m examples.gpu run --minutes 15 --data path/to/data --output-dir runs/gpu
    python -m examples.gpu pack --data path/to/data --wheels path/to/wheels --output-dir pieces   # for a machine without a network
    python -m examples.gpu run --minutes 15 --pieces pieces --output-dir runs/gpu                 # there

`run` does what is not done and fits into the minutes: tests on the GPU, the benchmark, the certified classifier and its certificates
at three noise levels, the l-infinity network. The same command continues what was interrupted. `--dry` does all of it in miniature on a CPU.
"""

import argparse
import sys
from pathlib import Path

from examples.gpu.pieces import pack, unpack
from examples.gpu.plan import ROOT, Choice, plan
from examples.gpu.work import Budget, spend


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="examples.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "pack"])
    parser.add_argument("--output-dir", type=Path, required=True, help="results of run, pieces of pack")
    parser.add_argument("--minutes", type=float, default=15.0, help="budget of all stages together (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder with cifar10 and mnist, each a folder for load_dataset")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to pack")
    parser.add_argument("--pieces", type=Path, nargs="+", help="folders of pieces to unpack first, instead of --data")
    parser.add_argument("--piece-mib", type=float, default=48.0, help="size of a piece in MiB (%(default)s)")
    parser.add_argument(
        "--backbone", default=str(ROOT / "model_cards" / "resnet-mixture"), help="backbone to finetune"
    )
    parser.add_argument("--epochs", type=int, default=60, help="epochs of the finetuning (%(default)s)")
    parser.add_argument("--linf-epochs", type=int, default=70, help="epochs of the l-infinity network (%(default)s)")
    parser.add_argument("--dry", action="store_true", help="all in miniature on the CPU")
    args = parser.parse_args(arguments)
    try:
        return _pack(args) if args.command == "pack" else _run(args)
    except ValueError as error:
        print(f"examples.gpu: {error}", file=sys.stderr)
        return 1


def _pack(args: argparse.Namespace) -> int:
    if args.data is None:
        raise ValueError("`pack` needs --data, the folder with cifar10 and mnist.")
    folders = {name: args.data / name for name in ("cifar10", "mnist")}
    if args.wheels is not None:
        folders["wheels"] = args.wheels
    pieces = pack(folders, args.output_dir, args.piece_mib)
    print(f"{len(pieces)} pieces of at most {args.piece_mib:g} MiB in {args.output_dir}.")
    return 0


def _run(args: argparse.Namespace) -> int:
    data = args.data or args.output_dir / "data"
    if not args.dry:
        _check(args, data)
    choice = Choice(data, args.output_dir.resolve(), args.backbone, args.epochs, args.linf_epochs, args.dry)
    if args.dry:
        choice = Choice(data, args.output_dir.resolve(), args.backbone, epochs=1, linf_epochs=1, dry=True)
    said = spend(plan(choice), choice.output, Budget(args.minutes))
    return int(any(text.startswith("failed") for text in said.values()))


def _check(args: argparse.Namespace, data: Path) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            "The kit needs a CUDA GPU, and torch sees none here. `--dry` runs it in miniature on the CPU."
        )
    if args.minutes < 2.0:
        raise ValueError(f"--minutes must be at least 2 for anything to be worth starting, got {args.minutes:g}.")
    if args.pieces:
        unpack(args.pieces, data)
    if missing := [name for name in ("cifar10", "mnist") if not (data / name).is_dir()]:
        raise ValueError(
            f"{data} must hold cifar10 and mnist, but {', '.join(missing)} is missing. Pass --data or --pieces."
        )


if __name__ == "__main__":
    sys.exit(main())
