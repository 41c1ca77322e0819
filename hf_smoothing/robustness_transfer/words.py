"""What a verdict is called, wherever an analysis is answered for: one table, a row for each question."""

from __future__ import annotations


VERDICTS = ("less", "more", "as", "few")
"""What `verdict_of` gives, in the order of the columns."""

_NONE = "no significant difference"
_ROWS = {
    "answer": (
        "Yes, the finetuned network is less robust than the one without pretraining",
        "No, the finetuned network is more robust than the one without pretraining",
        f"Not determined: {_NONE} between the finetuned network and the one without pretraining",
        "Not determined: {few}",
    ),
    "is it less robust?": ("yes", "no, more robust", _NONE, "{few}"),
    "is it more?": ("no, less", "yes", _NONE, "{few}"),
    "how robust is it?": ("less robust", "more robust", _NONE, "{few}"),
    "robustness": (
        "less robust than the standard one",
        "more robust than the standard one",
        "not significantly different from the standard one",
        "not judged, {few},",
    ),
    "universal": (
        "fools the finetuned network less often than the standard one",
        "fools the finetuned network more often than the standard one: {sign}",
        "shows no significant difference in how often it fools the finetuned and the standard network",
        "was tried on too few images ({few}) to say whether it fools the finetuned network more often than the standard one",
    ),
    "frequencies of a part": (
        "right less often than",
        "right more often than",
        "not significantly more or less often right than",
        "not judged, on {few}, against",
    ),
    "high frequencies": (
        "it relies less on high frequencies than the standard one",
        "it relies more on high frequencies than the standard one",
        f"{_NONE} in how much the two rely on high frequencies",
        "{few} to say how much the two rely on high frequencies",
    ),
}
"""Question -> words for each of `VERDICTS`."""


def in_words(question: str, verdict: str, *, few: str = "too few images", sign: str = "") -> str:
    """What a verdict is called in answer to a question.

    Args:
        question: A row of the table.
        verdict: The verdict, one of `VERDICTS`.
        few: What there is too little of, for "few".
        sign: What more universal perturbations that fool are a sign of.

    >>> in_words("is it less robust?", "more"), in_words("how robust is it?", "few")
    ('no, more robust', 'too few images')
    """
    return _ROWS[question][VERDICTS.index(verdict)].format(few=few, sign=sign)
