"""Plain English stays plain: phrases that are kept out, docstrings that are sentences, and no flags outside the command line."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).relative_to(ROOT).as_posix()
UNIT = "image|channel|class|network|run|rank|stage|step|side|sigma|method|second|minute|batch|figure|process|seed|forward pass|look|cell|path"
PHRASES = {
    rf"\b(copies|draws|ascents|images|bits|blocks?|pixels|one (entry|class|number|value|line|row|model|key|length)|a (row|line|panel)|\d[\d,.]*|\d (s|KB|h)) an? ({UNIT})\b(?! gets?\b| trained\b| time\b| is about\b| still\b)": "per image, per forward pass",
    r"\bone (an image|a threshold|a run)\b": "one per image",
    r"\bevery so many-th\b": "every k-th",
    r"\bso many (pixels|images|blocks|steps|batches|last)\b": "a maximum number of, this number of",
    r"(?i)(?<![a-z])t(ell|ells|old)[ _]apart(?![a-z])|\btells? [^.\n]{1,30} apart\b": "shows no significant difference from; distinguished",
    r"\bcertif(y|ies|ied)\b[^.\n]*\bfor certain\b": "deterministically",
    r"(?i)\bknown are\b": "supported layers: linear, ...",
    r"(?i)certifies nothing more\b": "certified accuracy beyond the largest target was not measured",
    r"(?i)\blight touch\b": "light finetuning (last stage only)",
    r"(?i)\bmend(s|ed|ing)?\b": "repair, correct; mitigation",
    r"(?i)\b(pretraining|backbones?|network|it) hands? (it )?on\b|\bhanded on\b|\bto hand on\b": "robustness transfer; transfers",
    r"(?i)\bwhat surprised\b": "unexpected results",
    r"(?i)^#+ the pieces\b": "building blocks",
    r"(?i)\bbeside the published tables\b": "comparison with published results",
    r"(?i)\blabel-aware measuring\b": "label-aware evaluation",
    r"(?i)\bsays? nothing\b": "is vacuous, does not cover",
    r"(?i)\bfor want of\b": "without",
    r"(?i)(?<![a-z])(is|are|was|were|be)[ _]told(?![a-z])": "is reported",
    r"(?i)\bso made\b": "built this way",
    r"(?i)\bnought\b": "zero",
    r"(?i)\ba thousand million\b": "10^9",
    r"(?i)\bat hand\b": "current",
}
"""What readers of the field would stumble over, and what they say instead."""
ENTRY = re.compile(r"^(?P<indent> +)[`*\w][\w`*, ]*: +(?P<text>\S.*)$")


def tracked(*patterns: str) -> list[str]:
    """Files of the repository, this one excepted."""
    try:
        listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the repository is not a Git checkout")
    return [path for path in listed.stdout.splitlines() if path != HERE and (ROOT / path).exists()]


def odd_phrases(text: str) -> list[str]:
    """Each phrase of the text that is in the list, with its line and what to say instead."""
    if not ANY.search(text):
        return []
    found = ((pattern, say, match) for pattern, say in COMPILED for match in pattern.finditer(text))
    return [f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; say: {say}" for _, say, match in found]


COMPILED = [(re.compile(pattern, re.MULTILINE), say) for pattern, say in PHRASES.items()]
ANY = re.compile("|".join(f"(?:{pattern.replace('(?i)', '')})" for pattern in PHRASES), re.MULTILINE | re.IGNORECASE)


def test_phrases_of_the_list_stay_out():
    found = {path: odd_phrases((ROOT / path).read_text(encoding="utf-8")) for path in tracked("*.py", "*.md")}
    assert found
    assert not {path: phrases for path, phrases in found.items() if phrases}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("One line an image, noisy copies a forward pass.", 1),
        ("losses, one an image", 1),
        ("It says nothing.\nIt mends this.", 2),
        ("one line per image, and draws an image gets", 0),
        ("# The pieces", 1),
        ("the pieces of a folder", 0),
    ],
)
def test_the_list_finds_its_phrases(text, count):
    assert len(odd_phrases(text)) == count


def strings(tree: ast.AST) -> list[tuple[ast.Constant, bool]]:
    """Each string of a module, and whether it is a docstring."""
    docs = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return [(node, id(node) in docs) for node in texts]


def entries(docstring: str) -> list[str]:
    """The texts of the arguments and attributes that a docstring describes."""
    texts: list[str] = []
    section, indent = False, 0
    for line in docstring.splitlines():
        depth = len(line) - len(line.lstrip())
        if line.strip() in ("Args:", "Attributes:"):
            section, indent = True, 0
            continue
        indent = indent or depth
        section = section and bool(line.strip()) and depth >= indent
        if section and depth == indent and (match := ENTRY.match(line)):
            texts.append(match["text"])
        elif section and texts and line.strip() != "{options}":
            texts[-1] += " " + line.strip()
    return texts


def is_sentence(text: str) -> bool:
    """Whether it begins with a capital letter, a name, a symbol or a number, and ends with a period."""
    return not re.match(r"[a-z]+\b", text) and text.rstrip().endswith((".", ":", ".)", '."'))


@pytest.fixture(scope="module")
def parsed() -> dict[str, list[tuple[ast.Constant, bool]]]:
    files = tracked("hf_smoothing/*.py", "examples/*.py")
    return {path: strings(ast.parse((ROOT / path).read_text(encoding="utf-8"))) for path in files}


def test_arguments_and_attributes_are_described_in_sentences(parsed):
    described = [
        (path, text) for path, found in parsed.items() for node, doc in found if doc for text in entries(node.value)
    ]
    assert len(described) > 500
    assert not [(path, text) for path, text in described if not is_sentence(text)]


@pytest.mark.parametrize(
    ("entry", "good"),
    [("seed: of the noise.", False), ("seed: Seed of the noise generator.", True), ("seed: Seed of the noise", False)],
)
def test_what_a_sentence_is(entry, good):
    (text,) = entries(f"A function.\n\n    Args:\n        {entry}\n    ")
    assert is_sentence(text) is good


def flags(found: list[tuple[ast.Constant, bool]]) -> list[str]:
    return [node.value for node, doc in found if not doc and re.search(r"(?<![\w-])--[a-z]", node.value)]


def test_the_library_names_arguments_and_the_command_line_names_flags(parsed):
    library = {path: found for path, found in parsed.items() if path.startswith("hf_smoothing/")}
    with_flags = {path: flags(found) for path, found in library.items() if flags(found)}
    assert not {path: found for path, found in with_flags.items() if not path.startswith("hf_smoothing/cli/")}
    assert any(path.startswith("hf_smoothing/cli/") for path in with_flags)
