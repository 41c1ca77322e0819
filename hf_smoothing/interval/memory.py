"""Which boxes stand for tensors that share memory, so that a change in place of one is never overlooked in another."""

from __future__ import annotations

from hf_smoothing.interval.refusals import UnsupportedOperationError


class Memory:
    """The memory of one tensor and of all its views.

    Every change in place counts up `version`. A box that was made before the last change stands for a tensor that has other entries
    by now: it is refused when it is used. What may share memory counts as sharing it (a reshape may be a view or a copy).
    """

    def __init__(self) -> None:
        self.version, self.changed_by = 0, ""

    def change(self, name: str) -> int:
        """Note a change in place by the operation of this name; the new version."""
        self.version, self.changed_by = self.version + 1, name
        return self.version

    def check(self, version: int, name: str) -> None:
        """Refuse a box of an older version.

        Raises:
            UnsupportedOperationError: The message names the operation that uses it, and the one that changed the
                memory.
        """
        if version != self.version:
            raise UnsupportedOperationError(
                f"{name!r} uses a tensor again whose memory was changed in place by {self.changed_by!r} through another view of it, which boxes do "
                "not follow. Take the operation that is not in place, such as ReLU(inplace=False), x = x + 1 or x = x.relu()."
            )
