"""Tutorials, how-tos and explanations: short sentences, one a line; messages of the library that they quote are its messages."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from examples.studies.tutorials import parts


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ALL = [
    ROOT / "README.md",
    *(path for folder in (DOCS, ROOT / "model_cards", ROOT / "skills") for path in sorted(folder.rglob("*.md"))),
]
LESSONS = sorted(path for kind in ("tutorials", "how_to") for path in (DOCS / kind).glob("*.md"))
PLAIN = [*LESSONS, *sorted((DOCS / "explanation").glob("*.md")), DOCS / "index.md"]
BLOCK = re.compile(r"^```.*?^```$|<!--.*?-->", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MOST_WORDS = 18


def sentences(text: str) -> list[str]:
    """The sentences of a page, without code, tables, headings, pictures and quoted messages; a link is its text, a piece of code is a word."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", BLOCK.sub("", text))
    lines = (re.sub(r"^\s*(?:[-*]|\d+\.)\s+", "", line).strip() for line in text.splitlines())
    prose = (re.sub(r"`[^`]+`", "code", line) for line in lines if line and line[0] not in "#|>!")
    return [part for line in prose for part in re.split(r"(?<=[.?!:])\s+(?=[A-Z*])", line) if part]


def average(text: str) -> float:
    """Words per sentence."""
    found = sentences(text)
    return sum(len(sentence.split()) for sentence in found) / len(found)


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_sentences_are_short(page):
    assert average(page.read_text(encoding="utf-8")) < MOST_WORDS


def test_the_average_counts_sentences():
    text = "# A heading of many words\n\nOne two three.\nFour five? Six.\n\n- `a b c` [two words](x.md)\n\n```\nno no no\n```\n| no |\n> no\n"
    assert sentences(text) == ["One two three.", "Four five?", "Six.", "code two words"]
    assert average(text) == 9 / 4
    assert average("word " * MOST_WORDS) >= MOST_WORDS


@pytest.mark.parametrize("page", PLAIN, ids=lambda page: page.stem)
def test_a_line_holds_one_sentence(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if not line.startswith(("|", ">", "#"))]
    assert not [line for line in lines if re.search(r"[a-z)`]\. [A-Z]", line)]


@pytest.mark.parametrize("page", LESSONS, ids=lambda page: page.stem)
def test_code_fits_the_page(page):
    """Of the site, 1,280 px wide; tables that are printed may be wider."""
    steps = [part.body for part in parts(page.read_text(encoding="utf-8")) if part.kind in ("python", "command")]
    assert not [line for body in steps for line in body.splitlines() if len(line) > 92]


def programs(text: str) -> list[str]:
    """Each command of a page on one line, without who launches it, and each file of options."""
    found = []
    for language, body in FENCE.findall(text):
        lines = body.replace("\\\n", " ").splitlines() if not language else [f"--{body}"] if language == "yaml" else []
        for line in lines:
            words = " ".join(re.split(r"\s#", line)[0].split())
            found.append(re.sub(r"^.*-m (-- )?hf_smoothing\.cli ", "hf-smoothing ", words))
    return found


def folders_of_two(text: str) -> dict[str, set[str]]:
    """Output folder -> the different commands of a page that write there; the stages of a study are one."""
    asked: dict[str, set[str]] = {}
    for program in programs(text):
        what = re.sub(r"^(python -m examples\.studies\.\w+) .*", r"\1", program)
        for folder in re.findall(r"[ -]output[-_]dir[:=]? ?(\S+)", program):
            asked.setdefault(folder, set()).add(what)
    return {folder: commands for folder, commands in asked.items() if len(commands) > 1}


@pytest.mark.parametrize("page", ALL, ids=lambda page: "-".join(page.relative_to(ROOT).with_suffix("").parts))
def test_no_two_commands_write_into_one_folder(page):
    """A folder that holds another run is refused, and a second report replaces the first."""
    assert folders_of_two(page.read_text(encoding="utf-8")) == {}


def test_two_commands_for_one_folder_are_found():
    certify = "hf-smoothing certify MODEL DATASET --sigma"
    page = f"```text\nsome\n```\n\n```\n{certify} 1 \\\n    --output-dir runs/a  # once\n{{}} --output-dir {{}}\n```\n"
    launched = certify.replace("hf-smoothing", "torchrun --nproc_per_node 2 -m -- hf_smoothing.cli")
    assert folders_of_two(page.format(f"{certify} 2", "runs/a")).keys() == {"runs/a"}
    assert not folders_of_two(page.format(f"{certify} 2", "runs/b")) and not folders_of_two(
        page.format(f"{launched} 1", "runs/a")
    )
    file = "\n```yaml\nmodel: M\noutput-dir: runs/a\nsigma: 1\n```\n"
    assert folders_of_two(page.format(f"{certify} 2", "runs/b") + file).keys() == {"runs/a"}


OF_A_CLONE = re.compile(r"\b(?:python|launch|torchrun)\b[^\n]* (?:-m )?(?:examples|tests|model_cards)[/.]")
"""A program that no wheel has."""


def before_a_clone_is_needed(text: str) -> str | None:
    """What a page says before the first command that only a clone has; None where there is none."""
    return next((text[: block.start()] for block in FENCE.finditer(text) if OF_A_CLONE.search(block[2])), None)


@pytest.mark.parametrize("page", [path for path in ALL if "model_cards" not in path.parts], ids=lambda page: page.stem)
def test_a_page_says_where_its_programs_are(page):
    before = before_a_clone_is_needed(page.read_text(encoding="utf-8"))
    assert before is None or re.search("[Ii]n a clone", before)


def test_programs_of_a_clone_are_known():
    page = "Some.\n\n```\n{}\n```\n"
    for program in (
        "python examples/finetune.py",
        "python -m examples.studies.x run",
        "accelerate launch --x 4 examples/finetune.py",
    ):
        assert before_a_clone_is_needed(page.format(program)) == "Some.\n\n"
    assert before_a_clone_is_needed(page.format("hf-smoothing certify MODEL examples/data")) is None


def messages() -> list[str]:
    """Every text of the library, with \\0 where a value comes."""
    found = []
    for path in (ROOT / "hf_smoothing").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def said_by(quote: str, texts: list[str]) -> bool:
    """Whether a text holds the quote; "..." in it stands for what varies."""
    pattern = re.compile(r".*".join(re.escape(part) for part in quote.split("...")), re.DOTALL)
    return any(pattern.search(text) for text in texts)


def test_quoted_messages_are_those_of_the_library():
    quotes = [
        (page.stem, line[2:])
        for page in (DOCS / "how_to").glob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("> ")
    ]
    assert len(quotes) > 20
    texts = messages()
    assert not [quote for quote in quotes if not said_by(quote[1], texts)]


def test_a_changed_message_is_found():
    assert said_by("of ... is not known.", ["The size of \0 is not known. Pass `size`."])
    assert not said_by("of ... is unknown.", ["The size of \0 is not known. Pass `size`."])


def test_limits_are_those_of_the_code():
    from hf_smoothing.noise import MAX_DRAWS, MAX_IMAGES
    from hf_smoothing.units import MAX_SIGMA

    page = (DOCS / "explanation" / "limits.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in page.splitlines() if line.startswith("|")]
    assert ["index of an image", f"below {MAX_IMAGES:,}"] in rows
    assert ["copies of an image", f"{MAX_DRAWS:,}"] in rows
    assert ["sigma", f"{MAX_SIGMA:g}"] in rows


@pytest.mark.parametrize("study", ["smoothing_transfer", "robustness_transfer", "training_methods"])
def test_a_study_begins_with_three_plain_answers(study):
    """Before any table, heading or interval; what its verdicts are about is defined before they stand."""
    text = (DOCS / f"{study}.md").read_text(encoding="utf-8")
    before = re.split(r"^(?:## |<!-- table |\||```)", text, maxsplit=1, flags=re.MULTILINE)[0]
    answers = re.findall(r"^- \*\*.*(?:\n  .*)*", before, re.MULTILINE)
    assert len(answers) == 3
    assert not re.search(r"\[[-+\d]|\d%", " ".join(answers))
    design = min(text.index(head) for head in ("\n## Method\n", "\n## Design of the study\n") if head in text)
    assert design < text.index("<!-- table cpu ")


def test_the_index_leads_to_every_page():
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(encoding="utf-8"), re.M | re.S)
    listed = [line for tree in trees for line in tree.splitlines() if line and line[0] != ":"]
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md") if "_build" not in path.parts
    }
    below = {page for page in pages if page.startswith(("reference/api/", "models/")) and not page.endswith("/index")}
    assert sorted(listed) == sorted(pages - below - {"index"})
