"""What certification can be asked: each option defined once, with its type, default and meaning.

The functions, the model's methods, the pipelines and the command line read these classes. To add an option: a line here, its use and its
record in the rule (`rules/make.py`, and `to_dict` of the rule), the stream or the execution that it is for, and a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, TypeVar, get_args, get_type_hints

from hf_smoothing.keywords import meant


@dataclass(frozen=True)
class Option:
    """What is said of an option beside its name and type.

    Attributes:
        default: Its value where it is not given.
        meaning: Sentences for the reader of a docstring or of a command's help.
    """

    default: Any
    meaning: str


class RuleOptions(TypedDict, total=False):
    """The number of draws per image, and what may be claimed from them: `make_rule`."""

    mode: Annotated[
        Literal["targets", "curve", "fixed"],
        Option(
            "targets",
            "'targets' draws until each target radius is certified or given up; 'curve' does so for a fine grid of radii; 'fixed' makes "
            "n0 + n draws of every image, as papers do.",
        ),
    ]
    targets: Annotated[
        Sequence[float] | None,
        Option(
            None,
            "Target radii, ascending; by default multiples of 0.25 (of sigma, if that is less) up to 3 sigma, as far as n draws can certify.",
        ),
    ]
    n0: Annotated[
        int | None,
        Option(
            None,
            "Number of draws that choose the class, 100 by default; 0 does without, at alpha / 2: the class is then the one with most votes.",
        ),
    ]
    n: Annotated[int, Option(100_000, "Number of estimation draws; the maximum in the sequential modes.")]
    alpha: Annotated[float, Option(0.001, "Failure probability of one certificate.")]
    spending: Annotated[
        bool, Option(False, "Exact error-spending boundaries instead of the union bound: a few percent fewer draws.")
    ]
    bound: Annotated[
        Literal["one-sided", "runner-up"],
        Option(
            "one-sided",
            "'one-sided' bounds the top class from below; 'runner-up' bounds the largest other class from above as well, in mode 'fixed'.",
        ),
    ]


class MeasuringOptions(TypedDict, total=False):
    """What only a run that measures accuracy may ask of its rule."""

    label_aware: Annotated[
        bool,
        Option(
            False, "Test the true label only: measures certified accuracy with fewer draws, and certifies nothing."
        ),
    ]


class RunRuleOptions(RuleOptions, MeasuringOptions, total=False):
    """The rule of a run."""


class NoiseOptions(TypedDict, total=False):
    """Which noise is drawn: `choose_noise`."""

    noise_kind: Annotated[
        Literal["auto", "grid", "gaussian"],
        Option(
            "auto",
            "'grid' draws whole steps of 1/255, sound in floating point, for 8-bit images; 'gaussian' draws float32 noise, as papers do; "
            "'auto' takes the grid where the images are on it.",
        ),
    ]


class ExecutionOptions(TypedDict, total=False):
    """How the network is run: `Execution`."""

    copies_per_batch: Annotated[
        int | None,
        Option(
            None,
            "Number of noisy copies per forward pass; it changes no noise. By default that of the device, of a data set the fastest of a "
            "short trial.",
        ),
    ]
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Option("float32", "Dtype of the network, by autocast; noise is never below float32."),
    ]
    channels_last: Annotated[
        bool, Option(False, "Memory format of convolutional networks: faster for them in half precision.")
    ]
    compile: Annotated[bool, Option(False, "Run the network through `torch.compile`.")]


class CertifyOptions(RuleOptions, NoiseOptions, ExecutionOptions, total=False):
    """All options of `certify`."""


class RunOptions(CertifyOptions, MeasuringOptions, total=False):
    """All options of `certify_dataset`."""


class PredictOptions(NoiseOptions, ExecutionOptions, total=False):
    """All options of `predict`."""

    mode: Annotated[
        Literal["sequential", "fixed"],
        Option("sequential", "'sequential' draws until the answer is decided; 'fixed' makes n draws of every image."),
    ]
    n: Annotated[int, Option(10_000, "Number of draws; the maximum in mode 'sequential'.")]
    alpha: Annotated[float, Option(0.001, "Failure probability of one answer.")]


@dataclass(frozen=True)
class Described:
    """An option with its name and its type.

    Attributes:
        name: Name of the option.
        type: Its type, such as `int | None`.
        default, meaning: As in `Option`.
    """

    name: str
    type: Any
    default: Any
    meaning: str

    @property
    def choices(self) -> tuple[str, ...]:
        """Its values, where there are only a few."""
        return get_args(self.type) if getattr(self.type, "__origin__", None) is Literal else ()


def options_of(kind: type) -> dict[str, Described]:
    """The options of one of the classes above, by name.

    Args:
        kind: Class of options, such as `CertifyOptions`.
    """
    found = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        about: Option = hint.__metadata__[0]
        found[name] = Described(name, hint.__origin__, about.default, about.meaning)
    return found


def filled(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a class: those given, and the defaults of the others.

    Raises:
        TypeError: On an unknown name; on a flag that is neither True nor False, since "no" would count as true.
        ValueError: On a value that is none of an option's choices.
    """
    known = options_of(kind)
    if unknown := [name for name in given if name not in known]:
        raise TypeError(
            f"The options are {', '.join(known)}, got {', '.join(map(repr, unknown))}. {meant(unknown[0], known)}"
        )
    for name, value in given.items():
        if known[name].choices and value not in known[name].choices:
            raise ValueError(f"`{name}` must be one of {', '.join(map(repr, known[name].choices))}, got {value!r}.")
        if known[name].type is bool and not isinstance(value, bool):
            raise TypeError(f"`{name}` must be True or False, got {value!r}.")
    return {name: option.default for name, option in known.items()} | dict(given)


def options_in(kind: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that belong to a class, such as `RuleOptions`."""
    return {name: options[name] for name in options_of(kind) if name in options}


F = TypeVar("F", bound=Callable[..., Any])


def documented(kind: type) -> Callable[[F], F]:
    """Show a function's options, which it takes as `**options`, in its signature, and in the place of "{options}" in its docstring."""

    def show(function: F) -> F:
        signature, options = inspect.signature(function), options_of(kind).values()
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        keyword = inspect.Parameter.KEYWORD_ONLY
        more = [inspect.Parameter(o.name, keyword, default=o.default, annotation=o.type) for o in options]
        function.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        before, place, after = (function.__doc__ or "").partition("{options}")
        margin = before.rpartition("\n")[2]  # a method's docstring is indented further
        function.__doc__ = (
            before + f"\n{margin}".join(f"{o.name}: {o.meaning}" for o in options) + after if place else before
        )
        return function

    return show
