"""Warnings and errors of the library in the words of a command line: without the source line that raised them, and with flags for arguments."""

from __future__ import annotations

import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hf_smoothing.cli.options import FLAGS, given_words, in_flags
from hf_smoothing.cli.places import trouble_of


PACKAGE = Path(__file__).parents[1]


@contextmanager
def warnings_in_flags(program: str, names: Collection[str] = FLAGS, given: Sequence[str] = ()) -> Iterator[None]:
    """Print a `UserWarning` as one line; whoever records warnings gets them as they are.

    Args:
        program: What the line begins with.
        names: The options of the command, with underscores; all by default.
        given: As in `in_flags`.
    """
    before = warnings.formatwarning

    def line(message: Warning | str, category: type[Warning], *where: object) -> str:
        if category is not UserWarning:
            return before(message, category, *where)  # type: ignore[arg-type]
        return f"{program}: warning: {in_flags(str(message), names, given)}\n"

    warnings.formatwarning = line  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = before


def explained(main: Callable[[], object]) -> None:
    """Run the main function of a script. What the library refuses ends it with status 2 and the message alone; other errors keep their traceback."""
    program, given = Path(sys.argv[0]).name, given_words(sys.argv[1:])
    try:
        with warnings_in_flags(program, given=given):
            main()
    except (ValueError, TypeError, OSError) as error:
        raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
        if not Path(raised_in).is_relative_to(PACKAGE):
            raise
        print(f"{program}: {in_flags(trouble_of(error), given=given)}", file=sys.stderr)
        raise SystemExit(2) from error
