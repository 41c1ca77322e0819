"""The page itself, in Gradio: `python -m examples.space.app`. What it shows and does is made in the other files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import gradio as gr

from examples.space import page, visits
from examples.space.classifiers import SIGMAS, load_clean, load_robust, samples


MOST_DRAWS = [("1,000 (quick)", 1_000), ("10,000", 10_000), ("100,000 (as papers)", 100_000)]

# Fonts of the system, so that nothing is fetched from elsewhere; the grey that themes give to explanations is hard to read.
THEME = gr.themes.Default(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(block_info_text_color="*body_text_color", block_info_text_color_dark="*body_text_color")

ON_LOAD = """() => {
  document.querySelector("#status").setAttribute("role", "status");  // what changes there is read aloud
  for (const id of ["sigma", "draws"])  // one name per group, so that arrow keys move within it
    document.querySelectorAll(`#${id} input`).forEach(input => input.name = id);
}"""

# The last input of each event is its time.
TIMED = "(...inputs) => [...inputs.slice(0, -1), performance.now()]"

# The same, and on a phone, where the answer is below the buttons, to the answer.
TIMED_AND_SHOWN = """(...inputs) => {
  if (innerWidth < 640) document.querySelector("#picture").scrollIntoView();
  return [...inputs.slice(0, -1), performance.now()];
}"""


def build(asked: visits.Asked) -> gr.Blocks:
    """The page.

    Args:
        asked: Its classifiers.
    """
    offered = samples()
    first = visits.Visit()
    parts = visits.choose(first, asked, *offered[0], SIGMAS[1], -1.0)

    # What events take from Gradio and give to it.
    def choose(visit: visits.Visit, sigma: float, when: float, event: gr.SelectData) -> list[Any]:
        return _new(visits.choose(visit, asked, *offered[int(event.index)], sigma, when))

    def upload(visit: visits.Visit, sigma: float, path: str, when: float) -> list[Any]:
        return [*_new(visits.upload(visit, asked, path, sigma, when)), gr.Gallery(selected_index=None)]

    def move(visit: visits.Visit, sigma: float, when: float) -> list[Any]:
        return _new(visits.move(visit, asked, sigma, when))

    def certify(visit: visits.Visit, sigma: float, n: int, when: float) -> Iterator[list[Any]]:
        yield from map(_new, visits.certify(visit, asked, sigma, n, when))

    def stop(visit: visits.Visit, when: float) -> list[Any]:
        return _new(visits.stop(visit, asked, when))

    with gr.Blocks(title="A certificate being made", analytics_enabled=False) as blocks:
        visit = gr.State(first)  # each visitor gets a copy
        gr.Markdown(page.INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                gallery = gr.Gallery(
                    offered, label="1. Choose an image", columns=5, allow_preview=False, height="auto",
                    elem_id="samples", selected_index=0, interactive=False, buttons=[],
                )  # fmt: skip
                file = gr.UploadButton("or upload your own", type="filepath", file_types=["image"], elem_id="upload")
                sigma = gr.Radio(
                    [(str(level), level) for level in SIGMAS], value=SIGMAS[1], label="2. Noise level, sigma", elem_id="sigma",
                    info="Larger noise can certify larger radii, of fewer images.",
                )  # fmt: skip
                draws = gr.Radio(
                    MOST_DRAWS, value=10_000, label="3. At most this number of noisy copies", elem_id="draws",
                    info="Certification stops as soon as more copies would change nothing.",
                )  # fmt: skip
                with gr.Row():
                    start = gr.Button("Certify", variant="primary", min_width=100, elem_id="certify")
                    halt = gr.Button("Stop", min_width=100, elem_id="stop")
                status = gr.HTML("", elem_id="status", apply_default_css=False, padding=False)
            with gr.Column(scale=3, min_width=300):
                picture = gr.HTML(parts.picture, elem_id="picture", apply_default_css=False, padding=False)
                panels = gr.HTML(parts.panels, elem_id="panels", apply_default_css=False, padding=False)
        gr.Markdown(page.READING)

        when = gr.Number(visible=False)
        shown: dict[str, Any] = {"outputs": [picture, panels, status], "show_progress": "hidden"}
        gallery.select(choose, [visit, sigma, when], js=TIMED, **shown)
        file.upload(
            upload, [visit, sigma, file, when], [picture, panels, status, gallery], js=TIMED_AND_SHOWN, show_progress="hidden"
        )  # fmt: skip
        sigma.change(move, [visit, sigma, when], js=TIMED, **shown)
        # Pressed again, it starts anew; some visitors at once share the processor.
        again: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 4}
        start.click(certify, [visit, sigma, draws, when], js=TIMED_AND_SHOWN, **again, **shown)
        halt.click(stop, [visit, when], js=TIMED, **shown)
        blocks.load(None, js=ON_LOAD)
    return blocks


def _new(parts: visits.Parts) -> list[Any]:
    return [gr.skip() if part is None else part for part in parts]


def main() -> None:
    """Start the page and wait."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=None, help="by default the first free one from 7860")
    args = parser.parse_args()
    print("Loading the classifiers. Where the clean one is missing it is finetuned, which takes a minute.", flush=True)
    robust, clean = load_robust(), load_clean()
    asked = visits.Asked(robust, clean, robust.config.id2label, robust.config.framing())
    build(asked).launch(
        server_port=args.port, share=False, theme=THEME, css=page.CSS, max_file_size="50mb", footer_links=[]
    )


if __name__ == "__main__":
    main()
