"""What is said and recorded of the certified resolution, before anything is certified."""

from __future__ import annotations

from typing import Any

from hf_smoothing.data.framing import enlargement


def resolution_summary(model: Any, dataset: Any) -> str:
    """At which resolution images are certified and how they get there, with a warning if they are enlarged to it.

    Args:
        model: The `SmoothedClassifier`.
        dataset: The `PixelDataset` or `PixelStream`.
    """
    framing = model.config.framing()
    height, width = framing.size
    how = f"whole images are resized to {height} x {width}"
    if framing.resize is False:
        how = "the centre of each image is taken as it is"
    elif not framing.plain:
        if isinstance(framing.resize, int):
            how = f"images are resized until their shortest edge is {framing.resize}, then the centre is cut out"
        else:
            how = f"images are resized to {' x '.join(map(str, framing.resize))}, then the centre is cut out"
    text = f"Certified resolution: {framing.channels} x {height} x {width} (channels x height x width); {how}."
    original = dataset.original_size()
    factor = None if original is None else enlargement(framing, original)
    if factor is None:
        return text
    return (
        f"{text}\nWarning: the first image is {original[0]} x {original[1]}, and such images are enlarged before the noise is added, where an l2 distance is about "
        f"{factor:.2g} times larger. To certify them at their own size pass --size {min(original)} with a plain classifier; a SmoothedClassifier has its "
        f"size from finetuning: SmoothedClassifier.from_base_pretrained(..., size={min(original)})."
    )


def preprocessing_facts(config: Any) -> dict[str, Any]:
    """What `run.json` holds of the way from an image to what the network sees."""
    return {"framing": config.framing().to_dict(), **config.preprocessing().to_dict()}
