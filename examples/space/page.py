"""From what is known to the HTML of the page: pure functions."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from examples.space.pictures import Chosen, data_uri
from examples.space.voting import Standing
from hf_smoothing.certification import Certificate
from hf_smoothing.statistics import exact_text, radius_text, round_down
from hf_smoothing.units import implied_linf


Names = Mapping[int, str]


@dataclass(frozen=True)
class About:
    """What the page says of a classifier.

    Attributes:
        title: Its heading.
        text: Where it comes from, in a sentence.
    """

    title: str
    text: str


ROBUST = About(
    "Robust classifier",
    "resnet-mixture-cifar10: its backbone was pretrained on clean and noisy images, and it was finetuned under noise on CIFAR-10.",
)
CLEAN = About(
    "Clean classifier",
    "resnet-clean-small, which never saw noise, finetuned on 2,000 clean CIFAR-10 images on this machine. It is smaller and saw fewer images, so "
    "this is an illustration; controlled comparisons are in the studies.",
)

ABOUTS = (ROBUST, CLEAN)

INTRODUCTION = """# Watch a certificate being made

Noise is added to one image, many times, and a classifier votes on each noisy copy.
From the votes follows a **radius**: no change of the pixels up to that l2 distance changes the answer of the vote.
Each certificate is wrong with a probability of at most **alpha = 0.001**.
"""

READING = """## How to read it

- **Votes** grow while copies are classified. Their shares are an estimate, and no certificate.
- **Certified so far**: the test looks at the votes at a few numbers of draws that were fixed beforehand. Its bounds hold at all of these looks together, so what is certified at one of them stays true.
- **Radius**: an l2 distance at 32 x 32 pixels with values in [0, 1]. It is the vote under noise that is certified, not the classifier alone.
- **Abstained**: no class was shown to win more than half of the copies. An abstention claims nothing.
- **Certify again** draws fresh noise: another certificate, with its own probability of being wrong.
- A certificate does not say that the answer is right. The classifiers know ten classes only: airplane, automobile, bird, cat, deer, dog, frog, horse, ship and truck; any other picture gets one of these names.
"""

CSS = """
.space img { image-rendering: pixelated; display: block; border-radius: 4px; background: #888; }
.space p { margin: .35rem 0; max-width: 46rem; }
.space .quiet { opacity: .8; font-size: .875rem; }
.space figure { margin: 0; }
.space figcaption { font-size: .8rem; line-height: 1.35; margin-top: .25rem; overflow-wrap: anywhere; }
.space .seen { display: flex; gap: 1rem; align-items: flex-start; flex-wrap: wrap; margin-bottom: .6rem; }
.space .seen > figure > img { width: 160px; height: 160px; }
.space .copies { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .6rem; flex: 1 1 16rem; max-width: 32rem; }
.space .copies img { width: 100%; aspect-ratio: 1; }
.space .panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 18rem), 1fr)); gap: 1rem; }
.space .panel { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 1rem; background: var(--background-fill-secondary); }
.space h3 { margin: 0 0 .25rem; font-size: 1.1rem; font-weight: 600; }
.space .votes { width: 100%; border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; font-size: .9rem; }
.space .votes caption { text-align: left; padding-bottom: .3rem; }
.space .votes th { width: 5.8rem; text-align: left; font-weight: 400; padding: 1px 0; }
.space .votes td { padding: 1px 0; }
.space .votes td + td { width: 3.6rem; text-align: right; }
.space .track { position: relative; height: .8rem; background: var(--border-color-primary); border-radius: 3px; }
.space .track::after { content: ""; position: absolute; left: 50%; top: -2px; bottom: -2px; border-left: 2px dotted var(--body-text-color); opacity: .7; }
.space .bar { height: 100%; background: #8694aa; border-radius: 3px; }
.space .first th { font-weight: 700; } .space .first .bar { background: #0072b2; }
.space .claim { border-left: 4px solid #8694aa; padding-left: .8rem; margin-top: .8rem; }
.space .claim.certified { border-color: #009e73; } .space .claim.abstained { border-color: #d55e00; }
.space .claim h4 { margin: 0; font-size: 1.05rem; font-weight: 700; }
.space dl { margin: .4rem 0 0; font-variant-numeric: tabular-nums; font-size: .9rem; }
.space dl div { display: flex; flex-wrap: wrap; justify-content: space-between; column-gap: .5rem; padding: .2rem 0; border-top: 1px solid var(--border-color-primary); }
.space dt { opacity: .8; } .space dd { margin: 0; font-weight: 600; }
.space .word { border-left: 4px solid #d55e00; padding: .3rem .8rem; font-weight: 600; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .space figcaption { font-size: .68rem; } .space .panel { padding: .75rem; } }
#samples .grid-container { grid-template-columns: repeat(5, minmax(0, 1fr)) !important; grid-auto-rows: auto !important; gap: 6px; height: auto !important; max-height: none !important; padding: 0; overflow: visible; }
#samples .grid-wrap { height: auto !important; max-height: none !important; overflow: visible; padding-top: 1.8rem; }
#samples, #samples .gallery-container { height: auto !important; max-height: none !important; min-height: 0 !important; }
#samples img { image-rendering: pixelated; }
#samples .caption-label, #samples .fixed-height { min-height: 0 !important; }
#samples .caption-label { font-size: .65rem; padding: 0 3px; right: 0; bottom: 0; max-width: 100%; }
"""
"""Colours of the theme where there are any, so that the page is readable in light and dark."""


def seen(
    chosen: Chosen, copies: Tensor, sigma: float, votes: Sequence[Sequence[int]] | None = None, names: Names | None = None
) -> str:  # fmt: skip
    """What the networks see: the image and some noisy copies, and what each classifier says of each copy.

    Args:
        chosen: The image.
        copies: Noisy copies, float (count, 3, height, width).
        sigma: Their noise level.
        votes: For the robust and the clean classifier, the class of each copy; None before there are votes.
        names: Names of the classes.
    """
    pictures = []
    for number, copy in enumerate(copies):
        words = "" if votes is None or names is None else _caption([names[each[number]] for each in votes])
        pictures.append(f'<figure><img alt="Noisy copy {number + 1}" src="{data_uri(copy)}">{words}</figure>')
    height, width = chosen.pixels.shape[1:]
    legend = (
        "" if votes is None else " Below each copy, the vote of the robust classifier, then that of the clean one."
    )
    return (
        f'<div class="space"><div class="seen"><figure><img alt="The image at {width} x {height} pixels" src="{data_uri(chosen.pixels)}">'
        f"<figcaption>what is certified</figcaption></figure>"
        f'<div class="copies">{"".join(pictures)}</div></div><p>{html.escape(chosen.about)}</p>'
        f'<p class="quiet">{len(copies)} noisy copies at sigma {exact_text(sigma)}. Noise that leaves the range from black to white is cut off '
        f"in these pictures, not for the networks.{legend}</p></div>"
    )


def _caption(answers: Sequence[str]) -> str:
    return f"<figcaption>{'<br>'.join(html.escape(answer) for answer in answers)}</figcaption>"


def word(text: str) -> str:
    """A message to the visitor, such as why a file cannot be used."""
    return f'<div class="space"><p class="word" role="alert">{html.escape(text)}</p></div>'


def panels(
    chosen: Chosen, clean_answers: Sequence[str], standings: Sequence[Standing | None], names: Names, stopped: bool = False
) -> str:  # fmt: skip
    """The classifiers side by side: votes, and what is certified.

    Args:
        chosen: The image.
        clean_answers: The class that each gives the image without noise.
        standings: What is known of each; None before the first votes.
        names: Names of the classes.
        stopped: Whether the visitor ended certification early.
    """
    parts = []
    for about, answer, standing in zip(ABOUTS, clean_answers, standings, strict=True):
        body = f'<p class="quiet">{"Stopped before the first votes." if stopped else "No votes yet."}</p>'
        if standing is not None:
            body = _votes(standing.counts, names, standing.drawn) + _claim(standing, names, chosen, stopped)
        parts.append(
            f'<section class="panel"><h3>{html.escape(about.title)}</h3><p class="quiet">{html.escape(about.text)}</p>'
            f"<p>Without noise it answers <b>{html.escape(answer)}</b>.</p>{body}</section>"
        )
    return f'<div class="space"><div class="panels">{"".join(parts)}</div></div>'


def summary(standings: Sequence[Standing | None], names: Names) -> str:
    """The results in a sentence for each classifier, to be read aloud."""
    parts = []
    for about, standing in zip(ABOUTS, standings, strict=True):
        certificate = None if standing is None else standing.certificate
        if certificate is None or certificate.abstained:
            parts.append(f"{about.title}: abstained.")
        else:
            parts.append(
                f"{about.title}: {names[certificate.prediction]} within l2 radius {round_down(certificate.radius)}."
            )
    return " ".join(parts)


def _votes(counts: Sequence[int], names: Names, drawn: int) -> str:
    first = max(range(len(counts)), key=counts.__getitem__)
    rows = [
        f'<tr{" class=first" if label == first else ""}><th scope="row">{html.escape(names[label])}</th>'
        f'<td><div class="track"><div class="bar" style="width:{100 * count / drawn:.1f}%"></div></div></td><td>{count:,}</td></tr>'
        for label, count in enumerate(counts)
    ]
    caption = f"Votes of {drawn:,} noisy copies; the dotted line is one half"
    return f'<table class="votes"><caption class="quiet">{caption}</caption>{"".join(rows)}</table>'


def _claim(standing: Standing, names: Names, chosen: Chosen, stopped: bool) -> str:
    certificate = standing.certificate
    if standing.finished and certificate is not None:
        if certificate.abstained:
            return _box("abstained", "Abstained: no certificate", [abstention(certificate)])
        title = f"Certified: {names[certificate.prediction]} within l2 radius {round_down(certificate.radius)}"
        return _certificate_box("certified", title, [], certificate, names, chosen)
    first = max(range(len(standing.counts)), key=standing.counts.__getitem__)
    estimate = (
        f"{'Estimate' if stopped else 'Running estimate'}, not a certificate: {names[first]} has {100 * standing.counts[first] / standing.drawn:.1f}% of the "
        f"{standing.drawn:,} votes so far."
    )
    if not stopped:
        estimate += f" At most {standing.most:,} copies will be made."
    title = "Stopped early" if stopped else "Votes are being counted"
    if certificate is None or certificate.abstained:
        return _box("", f"{title}: nothing is certified{'' if stopped else ' yet'}", [estimate])
    so_far = f"{title}: {names[certificate.prediction]} within l2 radius {round_down(certificate.radius)} is certified so far"
    return _certificate_box("", so_far, [estimate], certificate, names, chosen)


def _certificate_box(
    kind: str, title: str, before: list[str], certificate: Certificate, names: Names, chosen: Chosen
) -> str:
    if chosen.label not in (None, names[certificate.prediction]):
        before = [
            *before,
            f"That class is wrong: the label is {chosen.label}. A certificate says that the answer is stable, not that it is right.",
        ]
    return _box(kind, title, before, certificate_rows(certificate, chosen.pixels.shape), _covers(certificate))


def abstention(certificate: Certificate) -> str:
    """Why there is no certificate, and what that means."""
    return (
        f"After {certificate.draws:,} noisy copies it is not shown that one class wins more than half of them at sigma "
        f"{exact_text(certificate.sigma)}, and more copies were not worth the time. An abstention claims nothing, so it is never wrong."
    )


def certificate_rows(certificate: Certificate, shape: Sequence[int]) -> list[tuple[str, str]]:
    """A certificate in words and figures; radii are rounded down.

    Args:
        certificate: One that does not abstain.
        shape: Shape of the image, (channels, height, width).
    """
    linf = implied_linf(certificate.radius, shape)
    return [
        ("l2 radius (pixels in [0, 1])", round_down(certificate.radius)),
        ("in 8-bit grey levels", round_down(_grey_levels(certificate.radius), 1)),
        ("l-infinity radius that it implies", radius_text(linf, "linf")),
        ("in 8-bit grey levels", round_down(_grey_levels(linf), 2)),
        ("probability of being wrong (alpha)", f"≤ {exact_text(certificate.alpha)}"),
        ("noisy copies used", f"{certificate.draws:,}"),
        ("noise level (sigma)", exact_text(certificate.sigma)),
    ]


def _covers(certificate: Certificate) -> str:
    if certificate.radius < 1 / 255:
        return "This is less than one grey level of one pixel: no other 8-bit image is covered."
    return f"It covers {certificate.threat_model}."


def _grey_levels(radius: float) -> float:
    # A step down, since the product is rounded to the nearest number.
    return math.nextafter(255.0 * radius, 0.0)


def _box(kind: str, title: str, before: Sequence[str], rows: Sequence[tuple[str, str]] = (), after: str = "") -> str:
    lines = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in rows)
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in before)
    end = f"<dl>{lines}</dl><p>{html.escape(after)}</p>" if lines else ""
    return f'<div class="claim {kind}"><h4>{html.escape(title)}</h4>{text}{end}</div>'
