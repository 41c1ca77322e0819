"""The page itself, in Gradio: `python -m examples.space.app`. All it shows is made in the other files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from examples.space import page
from examples.space.classifiers import SIGMAS, load_clean, load_robust, samples
from examples.space.pictures import Chosen, UnusableFileError, read_file, sample
from examples.space.voting import answers, first_copies, side_by_side, standings
from hf_smoothing import SmoothedClassifier
from hf_smoothing.noise import fresh_seed
from hf_smoothing.pixels import to_unit_pixels


COPIES = 8
ABOUTS = (page.ROBUST, page.CLEAN)
MOST_DRAWS = [("1,000 (quick)", 1_000), ("10,000", 10_000), ("100,000 (as papers)", 100_000)]

# Fonts of the system: nothing is fetched from elsewhere.
THEME = gr.themes.Default(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    block_info_text_color="*body_text_color",
    block_info_text_color_dark="*body_text_color",  # its grey is hard to read
)


@dataclass(frozen=True)
class Classifiers:
    """The robust and the clean classifier, whose classes and pixels are the same."""

    robust: SmoothedClassifier
    clean: SmoothedClassifier

    @property
    def both(self) -> tuple[SmoothedClassifier, SmoothedClassifier]:
        """In the order of the page."""
        return self.robust, self.clean

    @property
    def names(self) -> dict[int, str]:
        """The names of the classes."""
        return dict(self.robust.config.id2label)

    def without_noise(self, chosen: Chosen) -> list[str]:
        """What each answers to the image itself."""
        pixels = to_unit_pixels(chosen.pixels[None])
        return [self.names[answers(model, pixels)[0]] for model in self.both]

    def panels(self, chosen: Chosen, found: Any = (None, None), stopped: bool = False) -> str:
        """The panels of the page."""
        return page.panels(ABOUTS, self.without_noise(chosen), self.names, chosen.pixels.shape, found, stopped=stopped)


def preview(chosen: Chosen, sigma: float) -> str:
    """The image and noisy copies of it, before any vote."""
    return page.seen(chosen, first_copies(chosen.pixels, sigma=sigma, seed=fresh_seed(None), count=COPIES), sigma)


def build(models: Classifiers) -> gr.Blocks:
    """The page.

    Args:
        models: What it asks.
    """
    framing = models.robust.config.framing()
    offered = samples()

    def choose_sample(number: int) -> Chosen:
        image, name = offered[number]
        return sample(image, name, framing)

    first = choose_sample(0)

    def show(chosen: Chosen, sigma: float) -> tuple[Any, ...]:
        return chosen, preview(chosen, sigma), models.panels(chosen), None, "", *_buttons(running=False)

    def choose(sigma: float, event: gr.SelectData) -> tuple[Any, ...]:
        return show(choose_sample(event.index), sigma)

    def upload(path: str | None, sigma: float) -> tuple[Any, ...]:
        try:
            return show(read_file(path or "", framing), sigma)
        except UnusableFileError as error:
            return (
                None,
                page.word(str(error)),
                "",
                None,
                str(error),
                gr.update(interactive=False),
                gr.update(interactive=False),
            )

    def move(chosen: Chosen | None, sigma: float) -> tuple[Any, ...]:
        return (gr.skip(),) * 7 if chosen is None else show(chosen, sigma)

    def certify(chosen: Chosen, sigma: float, n: int) -> Iterator[tuple[Any, ...]]:
        seed = fresh_seed(None)  # a known one would let a visitor choose an image against the noise
        copies = first_copies(chosen.pixels, sigma=sigma, seed=seed, count=COPIES)
        votes = [answers(model, copies) for model in models.both]
        yield (
            page.seen(chosen, copies, sigma, votes, models.names),
            gr.skip(),
            None,
            "Certifying.",
            *_buttons(running=True),
        )
        runs = [standings(model, chosen.pixels, sigma=sigma, n=n, seed=seed) for model in models.both]
        found: Any = (None, None)
        for found in side_by_side(runs):
            yield gr.skip(), models.panels(chosen, found), found, gr.skip(), gr.skip(), gr.skip()
        yield gr.skip(), gr.skip(), found, page.summary(ABOUTS, found, models.names), *_buttons(running=False)

    def stop(chosen: Chosen, found: Any) -> tuple[Any, ...]:
        panels = models.panels(chosen, found or (None, None), stopped=True)
        return panels, "Stopped.", *_buttons(running=False)

    with gr.Blocks(title="A certificate being made", analytics_enabled=False) as blocks:
        chosen, found = gr.State(first), gr.State(None)
        gr.Markdown(page.INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                gallery = gr.Gallery(
                    offered, label="1. Choose an image", columns=5, allow_preview=False, height="auto",
                    elem_id="samples", selected_index=0, interactive=False, buttons=[],
                )  # fmt: skip
                file = gr.UploadButton("or upload your own", type="filepath", file_types=["image"], elem_id="file")
                sigma = gr.Radio(
                    [(f"{level}", level) for level in SIGMAS], value=SIGMAS[1], label="2. Noise level, sigma", elem_id="sigma",
                    info="Larger noise can certify larger radii, of fewer images.",
                )  # fmt: skip
                most = gr.Radio(
                    MOST_DRAWS, value=10_000, label="3. At most this number of noisy copies", elem_id="draws",
                    info="Certification stops as soon as more copies would change nothing.",
                )  # fmt: skip
                with gr.Row():
                    start = gr.Button("Certify", variant="primary", min_width=100, elem_id="certify")
                    halt = gr.Button("Stop", interactive=False, min_width=100, elem_id="stop")
                status = gr.HTML("", elem_id="status", apply_default_css=False, padding=False)
            with gr.Column(scale=3, min_width=300):
                picture = gr.HTML(preview(first, SIGMAS[1]), elem_id="picture", apply_default_css=False, padding=False)
                panels = gr.HTML(models.panels(first), elem_id="panels", apply_default_css=False, padding=False)
        gr.Markdown(page.READING)

        shown = [chosen, picture, panels, found, status, start, halt]
        running = start.click(
            certify, [chosen, sigma, most], [picture, panels, found, status, start, halt], show_progress="hidden"
        )
        # On a phone the votes are below the button.
        start.click(
            None,
            js="() => { if (innerWidth < 640) document.querySelector('#picture').scrollIntoView({behavior: 'smooth'}); }",
        )
        quiet: dict[str, Any] = {"show_progress": "hidden", "cancels": [running]}
        gallery.select(choose, [sigma], shown, **quiet)
        file.upload(upload, [file, sigma], shown, **quiet)
        sigma.change(move, [chosen, sigma], shown, **quiet)
        halt.click(stop, [chosen, found], [panels, status, start, halt], **quiet)
        # What changes there is read aloud.
        blocks.load(
            None, js="() => { const e = document.querySelector('#status'); e.setAttribute('role', 'status'); }"
        )
    return blocks


def _buttons(running: bool) -> tuple[Any, Any]:
    return gr.update(interactive=not running), gr.update(interactive=running)


def main(arguments: list[str] | None = None) -> None:
    """Start the page and wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=None, help="by default the first free one from 7860")
    args = parser.parse_args(arguments)
    print("Loading the classifiers; the first start finetunes the clean one, a minute on two CPU cores.", flush=True)
    models = Classifiers(load_robust(), load_clean())
    build(models).launch(
        server_port=args.port, share=False, theme=THEME, css=page.CSS, max_file_size="50mb", footer_links=[]
    )


if __name__ == "__main__":
    main()
