"""The tables of docs/hardware.md, from the records: `python -m examples.studies.hardware`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from examples.studies.pages import markdown_table
from hf_smoothing.cards import fill_one
from hf_smoothing.records import read_json


ROOT = Path(__file__).resolve().parents[2]


def trainings(gpu: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of trainings."""
    return [
        [
            one["job"],
            f"{one['gpu']}, beside {one['beside']}",
            f"{one['batch_size']}",
            f"{one['copies_of_each']}",
            f"{one['steps_per_second']:.1f}",
            f"{round(one['steps_per_second'] * one['batch_size'] * one['copies_of_each'], -2):,.0f}",
            f"{one['seconds'] / 60:.1f}",
        ]
        for one in gpu["training"]
    ]


def jobs(root: Path, gpu: dict[str, Any], throughput: dict[str, Any], on_gpu: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of usual jobs."""
    cpu = read_json(root / "docs" / "results" / "certification.json")["speedup_over_published_loop"]
    small = cpu["details"]["resnet-small, CIFAR-10"]["cpu"]
    minutes = small["our_mean_draws"] * small["images"] / small["copies_per_second"]["ours"] / 60
    large = cpu["details"]["resnet-mixture-cifar10, CIFAR-10"]["cpu"]["copies_per_second"]["ours"]
    seconds, draws = gpu["certification"]["seconds"], gpu["certification"]["draws"]
    return [
        [
            f"CIFAR-10, {small['images']} images, n = {small['n']:,}, {len(small['radii'])} target radii, one sigma, ResNet with 1.2M parameters",
            f"{minutes:.0f} minutes of one of them ({small['copies_per_second']['ours']:,} copies/s, `torch.compile`)",
            "not measured",
        ],
        [
            f"CIFAR-10, 500 images, n = 100,000, three sigmas at all targets, ResNet with 4.9M parameters ({draws / 1e6:.1f} million draws)",
            f"{draws / large / 3600:.1f} hours by the measured {large:,} copies/s",
            f"{max(seconds.values()) / 60:.1f} minutes of an {gpu['certification']['gpu']} ({round(draws / max(seconds.values()), -3):,.0f} copies/s in all)",
        ],
        *(
            [
                f"ImageNet, 500 images, n = 100,000, {name} at {one['resolution'][-1]} px, at the {small['our_mean_draws']:,.0f} draws per image of the first row",
                f"{500 * small['our_mean_draws'] / one['copies_per_second'] / 3600:.0f} hours by the measured {one['copies_per_second']:.1f} copies/s",
                f"{500 * small['our_mean_draws'] / on_gpu['value'][name]['copies_per_second'] / 60:.1f} minutes of an {on_gpu['gpu']} by the measured {round(on_gpu['value'][name]['copies_per_second'], -1):,.0f} copies/s",
            ]
            for name, one in throughput.items()
            if one["resolution"][-1] == 224
        ),
    ]


def speeds(throughput: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of certification on a CPU."""
    return [
        [
            f"{name}, {one['parameters'] / 1e6:.0f}M parameters, {one['resolution'][-1]} px",
            f"{one['batch_size']}",
            f"{one['copies_per_second']:.1f}",
            f"{one['certify_over_forward']:.3f}",
            f"{100 * one['noise_share']:.2g}%",
            f"{one['peak_memory_mib'] / 1024:.1f} GiB",
        ]
        for name, one in throughput.items()
    ]


def gpu_speeds(throughput: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of certification on a GPU."""
    return [
        [
            f"{name}, {one['parameters'] / 1e6:.0f}M parameters, {one['resolution'][-1]} px",
            f"{one['batch_size']:,}",
            f"{round(one['copies_per_second'], -1):,.0f}",
            f"{one['certify_over_forward']:.3f}",
            f"{one['certify_over_forward_by_torch']:.3f}",
            f"{100 * one['noise_share']:.2g}%",
            f"{one['noise_kernel_over_torch']:.1f}",
            f"{one['images_per_hour_at_n_100000']:,.0f}",
            f"{one['peak_memory_mib'] / 1024:.1f} GiB",
        ]
        for name, one in throughput.items()
    ]


def exchanges(measured: dict[str, Any]) -> list[list[str]]:
    """Rows of the table of the exchange of ranks."""
    return [
        [ranks, f"{one['milliseconds']:g} ms", f"{one['milliseconds_95_percent']:g} ms"]
        for ranks, one in measured["value"].items()
    ]


def write(root: Path = ROOT) -> None:
    """Fill the page."""
    measured = read_json(root / "docs" / "results" / "hardware.json")
    gpu, throughput, on_gpu = (measured[part] for part in ("gpu", "cpu", "gpu_throughput"))
    throughput = throughput["value"]
    tables = {
        "hardware jobs": markdown_table(
            ["job", "2 CPU cores (AMD EPYC)", "one GPU"], jobs(root, gpu, throughput, on_gpu)
        ),
        "hardware speeds": markdown_table(
            ["network", "batch size found", "copies/s", "certify / bare forward", "noise", "peak memory"],
            speeds(throughput),
        ),
        "hardware gpu speeds": markdown_table(
            [
                "network",
                "batch size found",
                "copies/s",
                "certify / bare forward",
                "the same without the kernel",
                "noise",
                "kernel / torch's operations, noise alone",
                "images an hour by `--mode fixed`, n = 100,000",
                "peak memory",
            ],
            gpu_speeds(on_gpu["value"]),
        ),
        "hardware exchange": markdown_table(
            ["ranks", "median", "95% of the exchanges within"], exchanges(measured["exchange"])
        ),
        "hardware trainings": markdown_table(
            ["training", "GPU", "batch size", "copies of each", "steps/s", "copies/s", "minutes"], trainings(gpu)
        ),
    }
    page = root / "docs" / "hardware.md"
    text = page.read_text(encoding="utf-8")
    for name, body in tables.items():
        text = fill_one(text, name, body, page)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
