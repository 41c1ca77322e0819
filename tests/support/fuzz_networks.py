"""Random networks of everything that boxes accept, and attacks on what is claimed of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from hf_smoothing.interval import Box, UnsupportedOperationError, box_around, linf_certificates
from hf_smoothing.interval.margins import margins_of
from hf_smoothing.interval.registry import RULES
from hf_smoothing.interval.search import BACKWARD, trace_for
from tests.support.fuzz_operations import ARGUMENTS, LISTS, SECOND


Step = Callable[[list[Any]], list[Any]]
"""All tensors so far, to the same and what an operation makes of one of them."""

SPELLINGS = {
    name: [(function, in_place) for function, (operation, in_place) in RULES.items() if operation.name == name]
    for name in ARGUMENTS
}
CASTS = ("float", "double", "to")  # a run in float64 would not be real arithmetic with them


STARTS: list[tuple[str, Step]] = [
    ("pixels", lambda known: known),
    ("pixels", lambda known: known),
    ("features", lambda known: [*known, known[0].flatten(1) - 0.5]),
    ("sequence", lambda known: [*known, known[0].flatten(2)]),
    ("volume", lambda known: [*known, known[0].unflatten(2, (2, -1)) * 2.0]),
]
"""Tensors of 2, 3, 4 and 5 dimensions to begin with."""


class Program(nn.Module):
    """Steps over a list of tensors, and a linear layer over some of them."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[str, Step]] = []
        self.kept: list[int] = []
        self.heads: list[torch.Tensor] = []
        self.marker = nn.Parameter(torch.zeros(1))  # says the dtype

    def registers(self, x: Any) -> list[Any]:
        tensors: list[Any] = [x]
        for _, step in self.steps:
            tensors = step(tensors)
        return tensors

    def forward(self, x: Any) -> Any:
        return self.logits(self.registers(x))

    def logits(self, tensors: list[Any]) -> Any:
        logits: Any = 0.0
        for place, head in zip(self.kept, self.heads, strict=True):
            flat = tensors[place].flatten(1)
            logits = nn.functional.linear(flat, head.to(flat.dtype)) + logits
        return logits

    def __str__(self) -> str:
        return " | ".join(name for name, _ in self.steps)


def draw_step(source: random.Random, tensors: list[Any], names: list[str]) -> tuple[str, Step]:
    """A call of a random operation on a random tensor; its result, or results, are appended."""
    name = source.choice(names)
    place = (
        source.randrange(max(0, len(tensors) - 3), len(tensors))
        if source.random() < 0.8
        else source.randrange(len(tensors))
    )
    x = tensors[place]
    function, _ = source.choice(SPELLINGS[name])
    spelled = getattr(function, "__name__", name)
    method = spelled if getattr(torch.Tensor, spelled, None) is function else None
    args, named = ARGUMENTS[name](source, x)
    other = source.choice([place, *(k for k, t in enumerate(tensors) if t.shape == x.shape)])
    if "inplace" in RULES[function][0].signature.parameters and source.random() < 0.4:
        named["inplace"] = True
    reverse = any(_is(a, "other") for a in args) and source.random() < 0.5

    def step(known: list[Any]) -> list[Any]:
        target = known[place]
        given = [known[other] if _is(a, "other") else len(target) if _is(a, "batch") else a for a in args]
        if target.dtype == torch.float64:  # as layers of that dtype would have it
            given = [a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in given]
        if name in LISTS:
            result = function([target, known[other]], *given, **named)
        elif name in SECOND:
            result = function(given[0], target, *given[1:], **named)
        elif method is not None:
            result = getattr(target, method)(*given, **named)
        elif reverse:
            result = function(given[0], target, *given[1:], **named)
        else:
            result = function(target, *given, **named)
        return [*known, *(result if isinstance(result, (list, tuple)) else [result])]

    label = f"{spelled}[{place}]{'(inplace)' if named.get('inplace') else ''}"
    return label, step


def _is(argument: object, word: str) -> bool:
    return isinstance(argument, str) and argument == word


def draw_program(seed: int, length: int = 6, names: list[str] | None = None, size: int = 4) -> Program:
    """A network that runs on tensors; the same for the same seed."""
    source = random.Random(seed)
    names = names or sorted(ARGUMENTS)
    program, x = Program(), torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(seed))
    program.steps.append(source.choice(STARTS))
    wanted = source.randint(1, length) + 1
    for _ in range(60):
        if len(program.steps) == wanted:
            break
        tensors = run(program, x)
        try:
            step = draw_step(source, tensors, names)
            program.steps.append(step)
            after = run(program, x)
        except (RuntimeError, TypeError, IndexError, ValueError, NotImplementedError, AttributeError, UserWarning):
            program.steps = [known for known in program.steps if known is not step]
            continue
        fits = all(
            isinstance(t, torch.Tensor) and t.is_floating_point() and t.ndim >= 1 and 0 < t.numel() <= 3000
            and bool(t.isfinite().all()) and float(t.abs().max()) < 1e3
            for t in after
        )  # fmt: skip
        if not fits:
            program.steps.pop()
    tensors = run(program, x)
    usable = [k for k, t in enumerate(tensors) if t.ndim >= 2]
    program.kept = sorted({usable[-1], source.choice(usable)})
    for k in program.kept:
        features = tensors[k].flatten(1).shape[1]
        program.heads.append(
            torch.randn(3, features, generator=torch.Generator().manual_seed(seed + k)) / features**0.5
        )
    return program.eval()


def run(program: Program, x: torch.Tensor) -> list[Any]:
    with torch.no_grad():
        return program.registers(x.clone())


@dataclass
class Tally:
    """What became of the networks."""

    networks: int = 0
    certificates: int = 0
    positive: int = 0
    refused: int = 0
    attacked: int = 0
    broken: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)


def check(seed: int, tally: Tally, **options: Any) -> None:
    """Draw a network, certify it, and attack what is claimed; note all in the tally."""
    source = random.Random(~seed)
    program = draw_program(seed, **options)
    x = torch.rand(3, *options.get("shape", (3, 4, 4)), generator=torch.Generator().manual_seed(seed + 1))
    backward, cover = (
        source.choice(BACKWARD),
        source.random() < 0.6 or any(name.startswith(CASTS) for name, _ in program.steps),
    )
    tally.networks += 1
    try:
        classes, radii = linf_certificates(
            program, x, largest=0.3, backward=backward, steps=3, cover_run=cover, iterations=5, tolerance=1e-4
        )
        tally.certificates += len(x)
        tally.positive += int((radii > 0).sum())
        found = violations(program, x, classes, radii, source, backward, cover, tally)
    except (UnsupportedOperationError, ValueError, TypeError) as refusal:
        if "certified ball" in str(refusal):  # what these networks compute is one function, so a rule is wrong
            tally.broken.append(f"seed {seed}, backward={backward}, cover_run={cover}: {refusal}: {program}")
        tally.refused += 1
        tally.refusals[" ".join(str(refusal).split()[:9])] += 1
        return
    except Exception as error:  # neither a certificate nor a refusal
        found = f"{type(error).__name__}: {error}"
    if found:
        tally.broken.append(f"seed {seed}, backward={backward}, cover_run={cover}: {found}: {program}")


def violations(
    program: Program,
    x: torch.Tensor,
    classes: torch.Tensor,
    radii: torch.Tensor,
    source: random.Random,
    backward: str,
    cover: bool,
    tally: Tally,
) -> str:
    """What was found within a claimed radius or outside a claimed bound; "" if nothing.

    Two kinds of points: in the claimed radii, where the class must stay; in boxes of one width, where every tensor of the network must
    stay within its own box, and the margins above theirs.
    """
    dtype = torch.float32 if cover else torch.float64  # the run that is claimed
    exact, everyone = x.double(), torch.arange(len(x))
    generator = torch.Generator().manual_seed(source.randrange(2**31))
    for y in nearby(program, exact, radii, classes, generator, source):
        tally.attacked += len(y)
        wrong = (tensors_of(program, y, dtype)[1].argmax(1) != classes) & (radii > 0)
        if bool(wrong.any()):
            return f"another class within the certified radius of image {int(wrong.nonzero()[0])}"
    wide = torch.full((len(x),), source.choice([0.0, 0.001, 0.05, 0.3]), dtype=torch.float64)
    trace = trace_for(backward, 3, cover)
    box = box_around(exact, wide, trace, dtype=torch.float32, separate=True)
    with torch.no_grad():
        boxes = program.registers(box)
        logits_box = program.logits(boxes)
    if not isinstance(logits_box, Box):
        return ""  # constants made like boxes: no pixel changes the logits
    lower = margins_of(logits_box, classes).lower
    sound = everyone if trace.hopeless is None else everyone[~trace.hopeless]
    for y in nearby(program, exact, wide, classes, generator, source):
        tally.attacked += len(y)
        tensors, logits = tensors_of(program, y, dtype)
        gaps = logits.gather(1, classes[:, None]) - logits
        if bool((gaps < lower).masked_fill(lower == torch.inf, False).any()):
            return f"a margin below its bound in boxes of radius {float(wide[0])}"
        for k, (tensor, known) in enumerate(zip(tensors, boxes, strict=True)):
            if not isinstance(known, Box):
                continue  # a constant made like a box; or NotImplemented, with which Python's own operators answer a refusal
            if known.memory.version != known.version:
                continue  # refused if it were used
            outside = (tensor < known.lower) | (tensor > known.upper)
            if bool(outside.movedim(known.batch or 0, 0)[sound].any()):
                return f"tensor {k} outside its bounds in boxes of radius {float(wide[0])}"
    return ""


@torch.no_grad()
def tensors_of(program: Program, y: torch.Tensor, dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    """All tensors of a run, and the logits, in float64."""
    tensors = program.registers(y.to(dtype, copy=True))
    return [tensor.double() for tensor in tensors], program.logits(tensors).double()


def nearby(
    program: Program,
    x: torch.Tensor,
    radius: torch.Tensor,
    classes: torch.Tensor,
    generator: torch.Generator,
    source: random.Random,
) -> list[torch.Tensor]:
    """Points of the ball within [0, 1]: corners, anywhere, and where sign gradients lead; neighbours move as well."""
    low, high = ((x + s * radius.view(-1, *(1,) * (x.ndim - 1))).clamp(0, 1) for s in (-1, 1))
    share = torch.rand(4, *x.shape, generator=generator, dtype=x.dtype)
    share[:2] = share[:2].round()
    points = [low + s * (high - low) for s in share]
    place, entry = source.random(), source.random()

    def margin(tensors: list[Any]) -> torch.Tensor:
        out: torch.Tensor = program.logits(tensors)
        others = out.scatter(1, classes[:, None], -torch.inf).amax(1)
        return (others - out.gather(1, classes[:, None])[:, 0]).sum()

    def one_entry(tensors: list[Any]) -> torch.Tensor:
        flat: torch.Tensor = tensors[int(place * len(tensors))].flatten()
        return flat[int(entry * len(flat))]

    for climbed, steps, sign in ((margin, 3, 1), (one_entry, 1, 1), (one_entry, 1, -1)):
        y = x
        try:
            for _ in range(steps):
                with torch.enable_grad():
                    y = y.detach().requires_grad_()
                    (slope,) = torch.autograd.grad(climbed(program.registers(y.to(torch.float32) * 1.0)), y)
                slope = sign * slope
                y = torch.where(slope > 0, high, torch.where(slope < 0, low, y))
                points.append(y.detach())
        except RuntimeError:  # autograd cannot follow some changes in place, and constants have no slope
            continue
    return [torch.minimum(torch.maximum(p, low), high).contiguous() for p in points]
