"""Callbacks whose figures join those of an evaluation."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from transformers import Trainer, TrainerCallback

from hf_smoothing.training.averaging import AveragingCallback


class FiguresCallback(TrainerCallback):
    """Measures at every evaluation; the figures join those of the evaluation, of which they replace none.

    An evaluation under another `metric_key_prefix` than "eval" is one of other images, say of the test set: nothing is measured beside it.

    In a training they are measured once per step, and of several evaluation sets they join the figures of the first, so that what counts
    evaluations, such as `EarlyStoppingCallback`, counts each of them once. Such a callback may have been added before: this one goes before it.

    Args:
        trainer: The trainer to watch.
        name: Stands in the names of the figures, as in `eval_NAME_KEY`; None for `eval_KEY`.
    """

    def __init__(self, trainer: Trainer, name: str | None) -> None:
        self.trainer, self.name = trainer, name
        self._known: tuple[int, dict[str, float]] | None = None
        self._sets: set[str] = set()

    @abstractmethod
    def keys(self) -> list[str]:
        """Names of the figures, without `eval` before them and the name of the callback."""

    @abstractmethod
    def measured(self, args: Any) -> dict[str, float]:
        """The figures, by their keys, for the arguments of the trainer."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Go before the callbacks that may look at the figures.

        Raises:
            ValueError: If another callback has figures of the same names, or this one watches another trainer.
        """
        self._known = None
        self._check_names()
        callbacks = self.trainer.callback_handler.callbacks
        if self not in callbacks:
            raise ValueError(
                f"A {type(self).__name__} must be added to the trainer that it was made with, got another one. Make one with that trainer."
            )
        place = callbacks.index(self)
        first = next((number for number, one in enumerate(callbacks) if not _goes_first(one)), place)
        # The handler is going through them: those before `place` have had their turn, and none after it moves.
        if first < place:
            callbacks.insert(first, callbacks.pop(place))

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Measure, and add the figures to `metrics`; one whose name the evaluation has already is left out, with a warning.

        Raises:
            ValueError: Outside a training, if another callback has figures of the same names.
        """
        which = next((key for key in metrics or () if key.endswith("_runtime")), "")  # each set has one of its own
        if which and not which.startswith("eval_"):
            return
        if not getattr(self.trainer, "is_in_train", False):  # the weights may be others each time
            self._check_names()
            add_figures(self.trainer, metrics, self._named(self.measured(args)))
            return
        if self._known is None or self._known[0] != state.global_step:
            self._known, self._sets = (state.global_step, self._named(self.measured(args))), set()
        elif which not in self._sets:
            self._sets.add(which)
            return
        else:  # evaluated once more
            self._sets = set()
        self._sets.add(which)
        add_figures(self.trainer, metrics, self._known[1])

    def _named(self, figures: Mapping[str, float]) -> dict[str, float]:
        before = f"eval_{self.name}_" if self.name else "eval_"
        return {before + key: value for key, value in figures.items()}

    def _check_names(self) -> None:
        handler = getattr(self.trainer, "callback_handler", None)
        own = self._named(dict.fromkeys(self.keys(), 0.0))
        for other in handler.callbacks if handler is not None else ():
            if other is self or not isinstance(other, FiguresCallback):
                continue
            if twice := sorted(own.keys() & other._named(dict.fromkeys(other.keys(), 0.0)).keys()):
                raise ValueError(
                    f"Callbacks of one trainer must have figures of different names, got {twice[0]!r} from two. Give one of them a name, such as "
                    "name='held_out'."
                )


def _goes_first(callback: TrainerCallback) -> bool:
    return isinstance(callback, FiguresCallback | AveragingCallback)


def add_figures(trainer: Trainer, metrics: dict[str, float] | None, figures: Mapping[str, float]) -> None:
    """Log what a callback has measured, and add it to the figures of an evaluation.

    Args:
        trainer: The trainer that evaluates.
        metrics: Its figures; changed in place. What is there already stays, with a warning: it is known only after hours of training.
        figures: Those of the callback, by their whole names.
    """
    if taken := sorted(figures.keys() & (metrics or {}).keys()):
        warnings.warn(
            f"A callback replaces no figures of an evaluation, which has {taken[0]!r} already, from compute_metrics: the callback's are left out. "
            "Give the callback a name, such as name='held_out', or rename the figure of compute_metrics.",
            stacklevel=3,
        )
    new = {key: value for key, value in figures.items() if key not in taken}
    if metrics is not None:
        metrics.update(new)
    trainer.log(new)
