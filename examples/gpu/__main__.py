"""The GPU kit: what a few minutes of one GPU are best spent on, in the order of worth, each stage resumable.

    python -m examples.gpu run --minutes 15 --data path/to/data --output-dir runs/gpu

`run` does what is not done and fits into the minutes: the benchmark, tests on the GPU, two backbones, the certified classifiers and their
certificates at three noise levels, the l-infinity networks. The same command continues what was interrupted. `--dry` does all of it in
miniature on a CPU. For a machine without a network, the data and wheels of what it lacks travel in pieces:

    python -m examples.gpu pack --data path/to/data --wheels path/to/wheels --output-dir pieces
    python examples/gpu/pieces.py pieces here && export PYTHONPATH=.:here/site                    # there
    python -m examples.gpu run --minutes 15 --data here --output-dir runs/gpu                     # there
"""

import argparse
import os
import sys
from pathlib import Path

from examples.gpu.pieces import pack
from examples.gpu.plan import Choice, plan
from examples.gpu.processes import ended_by_signals
from examples.gpu.work import Budget, spend
from hf_smoothing.records import read_json, write_json


DATA = ("tiny_imagenet32", "cifar10", "mnist")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="examples.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["run", "pack"])
    parser.add_argument("--output-dir", type=Path, required=True, help="results of run, pieces of pack")
    parser.add_argument("--minutes", type=float, default=15.0, help="budget of all stages together (%(default)s)")
    parser.add_argument(
        "--data", type=Path, help="folder with tiny_imagenet32, cifar10 and mnist, each a folder for load_dataset"
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels to pack")
    parser.add_argument("--piece-mib", type=float, default=48.0, help="size of a piece in MiB (%(default)s)")
    parser.add_argument("--backbone", help="backbone to finetune, instead of pretraining two")
    parser.add_argument(
        "--stages", nargs="+", default=[], help="only the stages whose name starts so; what they need must be done"
    )
    parser.add_argument(
        "--linf-epochs",
        type=int,
        default=70,
        help="epochs of the l-infinity network for MNIST; those for CIFAR-10 take twice as many (%(default)s)",
    )
    parser.add_argument("--dry", action="store_true", help="all in miniature on the CPU")
    args = parser.parse_args(arguments)
    try:
        return _pack(args) if args.command == "pack" else _run(args)
    except ValueError as error:
        print(f"examples.gpu: {error}", file=sys.stderr)
        return 1


def _pack(args: argparse.Namespace) -> int:
    if args.data is None:
        raise ValueError(f"`pack` needs --data, a folder with any of {', '.join(DATA)}.")
    folders = {} if args.wheels is None else {"wheels": args.wheels}
    folders |= {name: args.data / name for name in DATA if (args.data / name).is_dir()}
    pieces = pack(folders, args.output_dir, args.piece_mib)
    print(f"{len(pieces)} pieces of at most {args.piece_mib:g} MiB in {args.output_dir}: {', '.join(folders)}.")
    return 0


def _run(args: argparse.Namespace) -> int:
    data = (args.data or args.output_dir / "data").resolve()
    epochs = 1 if args.dry else args.linf_epochs
    choice = Choice(data, args.output_dir.resolve(), args.backbone, epochs, args.dry)
    wanted = tuple(args.stages) or ("",)
    groups = plan(choice)
    stages = [stage for group in groups for stage in group]
    chosen = [stage for stage in stages if stage.name.startswith(wanted)]
    if not chosen:
        names = ", ".join(stage.name for stage in stages)
        raise ValueError(f"No stage starts with {' or '.join(wanted)}. There are: {names}.")
    if args.dry:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # several at a time on a few cores would wait for one another
    else:
        _check(args.minutes, data, [word for stage in chosen for word in stage.settings["command"]])
    _mark(choice.output, args.dry)
    with ended_by_signals():
        said = spend(groups, choice.output, Budget(args.minutes), wanted)
    return int(any(text.startswith(("failed", "refused")) for text in said.values()))


def _mark(output: Path, dry: bool) -> None:
    """Note whether a folder is of a dry run; never mix these results with real ones."""
    before = read_json(output / "kit.json")
    if before is not None and before["dry"] != dry:
        was, now = ("a real run", "a dry one") if dry else ("a dry run", "a real one")
        raise ValueError(f"{output} holds the results of {was}, this is {now}. Use another --output-dir.")
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "kit.json", {"dry": dry})


def _check(minutes: float, data: Path, words: list[str]) -> None:
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            "The kit needs a CUDA GPU, and torch sees none here. `--dry` runs it in miniature on the CPU."
        )
    if minutes < 2.0:
        raise ValueError(f"--minutes must be at least 2 for anything to be worth starting, got {minutes:g}.")
    needed = [name for name in DATA if str(data / name) in words]
    if missing := [name for name in needed if not (data / name).is_dir()]:
        raise ValueError(
            f"{data} must hold {', '.join(needed)} for these stages, but {', '.join(missing)} is missing. Pass --data, or fewer --stages."
        )


if __name__ == "__main__":
    sys.exit(main())
