"""The progress of a training in a log file, in place of the bar of `transformers`, which would write hundreds of them."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from hf_smoothing.progress import Progress, bars_are_seen


def say_progress_in_logs(trainer: Any) -> None:
    """Replace the trainer's bar, if it has one, where standard error is not a terminal or notebook."""
    if not bars_are_seen() and trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(LogProgressCallback())


class LogProgressCallback(TrainerCallback):
    """A line now and then about the steps, and the figures that are logged."""

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to count; a resumed training begins where it stopped."""
        self._progress = Progress(
            "Training", state.max_steps, "step", initial=state.global_step, shown=state.is_world_process_zero
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count."""
        if self._progress is not None:
            self._progress.update(state.global_step - self._progress.done)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Print the figures."""
        if state.is_world_process_zero and logs:
            shown = {name: value for name, value in logs.items() if name != "total_flos"}
            print(
                {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in shown.items()},
                flush=True,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Say the last of it."""
        if self._progress is not None:
            self._progress.close()
        self._progress = None
