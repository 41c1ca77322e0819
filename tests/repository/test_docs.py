"""The code in README.md and docs/ runs as printed, from a folder that looks like the root of the repository."""

import itertools
import json
import re
from pathlib import Path

import pytest

from hf_smoothing.statistics import sequential_ceiling


ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    "docs/guide.md",
    "docs/certification.md",
    "docs/finetuning.md",
    "docs/interval.md",
    "docs/robustness_transfer.md",
    "docs/how_to/choose_settings.md",
    "docs/how_to/deploy.md",
    "docs/how_to/imagenet.md",
    "docs/how_to/published_logs.md",
    "docs/how_to/resume.md",
    "docs/how_to/verify.md",
    "docs/reference/metric.md",
]
ALL = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)


def fenced(text: str) -> list[tuple[str, str]]:
    """Language and text of each block of a page."""
    return re.findall(r"^```([^`\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [code for kind, code in fenced((ROOT / page).read_text(encoding="utf-8")) if kind == language]


def steps(text: str) -> list[tuple[str, str]]:
    """Each block of Python with what the page shows after it as its output, if it does."""
    found = [*fenced(text), ("", "")]
    return [
        (code, after if kind == "output" else "")
        for (language, code), (kind, after) in itertools.pairwise(found)
        if language == "python"
    ]


@pytest.fixture
def root(tmp_path, monkeypatch):
    for name in ("examples", "model_cards"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")  # of the stock Trainer where there is no GPU
# peft 0.21 asks transformers 5.23 for it.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_run(page, root, capsys):
    """And print what the page shows."""
    found = steps((ROOT / page).read_text(encoding="utf-8"))
    assert found
    for block, shown in found:
        exec(compile(block, page, "exec"), {"__name__": "__main__"})
        assert shown in capsys.readouterr().out


def test_what_a_page_shows_belongs_to_the_block_before():
    text = "```{include} x.md\n```\n\n```python\na\n```\n\n```output\n1\n```\n\n```python\nb\n```\n\n```\nls\n```\n\n```output\n2\n```\n"
    assert steps(text) == [("a\n", "1\n"), ("b\n", "")]


@pytest.mark.parametrize("page", ALL)
def test_every_shown_output_is_compared(page):
    """Of a page whose blocks run here or, of a tutorial, with the record."""
    assert page in PAGES or page.startswith("docs/tutorials/") or not blocks(page, "output")


def test_the_cards_of_the_objectives_run(root):
    """Here one block builds on the one before; every card gives the function and the argument of the Trainer the same name and settings."""
    from hf_smoothing.training.objectives import OBJECTIVES, find_objective

    pytest.importorskip("peft")
    space = {"__name__": "__main__"}
    named = set()
    for block in blocks("docs/objectives.md", "python"):
        exec(compile(block, "docs/objectives.md", "exec"), space)
        args = space.get("args")
        if args is not None:
            named.add(args.objective)
            find_objective(args.objective, OBJECTIVES, args.objective_args)
    assert named == {"mixture", "stability", "consistency", "macer", "smoothadv", "smoothmix", "cat-rs"}


@pytest.mark.parametrize("page", ["README.md", "model_cards/README.md", "CONTRIBUTING.md", "SECURITY.md", *ALL])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("http")]
    assert links or page != "README.md"
    for link in links:
        path, _, heading = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE) if heading else []
        assert not heading or heading in [
            re.sub(r"[^\w -]", "", name).lower().replace(" ", "-") for name in headings
        ], link


def test_commands_of_the_readme_parse():
    from hf_smoothing.cli import build_parser

    commands = [line for line in "".join(blocks("README.md", "")).splitlines() if line.startswith("hf-smoothing")]
    assert len(commands) >= 2
    for command in commands:
        build_parser().parse_args(command.split()[1:])


def test_the_table_of_the_readme_is_what_was_measured():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "docs" / "results" / "main_job.json").read_text(encoding="utf-8"))
    for row in measured["demo_certified_accuracy"]["value"]:
        reach = sequential_ceiling(row["n"], row["alpha"], row["sigma"])
        columns = zip(row["radii"], row["certified_accuracy"], row["lower"], row["upper"], strict=True)
        cells = [
            f"{100 * a:.1f} ({100 * low:.1f}-{100 * high:.1f})" if radius <= reach else "-"
            for radius, a, low, high in columns
        ]
        name = row["model"].removesuffix(" backbone")
        cells = [name, f"{row['sigma']:g}", *cells, f"{100 * row['abstention_rate']:.1f}"]
        assert f"| {' | '.join(cells)} |" in text
        assert f"n = {row['n']}, n0 = 100, alpha = {row['alpha']}" in text
        assert f"{row['num_images']} CIFAR-10 test images" in text
