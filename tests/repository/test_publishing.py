"""The page on publishing, step by step, against a stand-in for the Hub: what comes back is what was certified."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from hf_smoothing import SmoothedClassifier, certify_dataset
from hf_smoothing.cli import main
from tests.repository.test_docs import blocks
from tests.support.hub import local_hub
from tests.support.processes import ROOT
from tests.support.tiny import data, pixels, smoothed


READ_BACK = """
import torch
torch.save(model.classify(torch.load("pixels.pt")).detach(), model.name_or_path.replace("/", "-") + ".pt")
"""


# Before 2.1, huggingface_hub has cards checked at the address of the Hub itself, whatever HF_ENDPOINT says.
UNCHECKED_CARDS = """
import huggingface_hub
if tuple(int(part) for part in huggingface_hub.__version__.split(".")[:2]) < (2, 1):
    huggingface_hub.RepoCard.validate = lambda *_, **__: None
"""


def run_blocks(folder, url, *codes):
    environment = os.environ | {
        "HF_ENDPOINT": url,
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(folder / "cache"),
        "HF_TOKEN": "hf_any",
    }
    environment |= {"PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([UNCHECKED_CARDS, *codes])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_save_card_push_and_load(tmp_path):
    folder = tmp_path / "runs" / "mine"
    model = smoothed().eval()
    model.save_pretrained(folder)
    certify_dataset(model, data(6), tmp_path / "runs" / "mine-certified", sigma=0.25, n0=10, n=60, progress=False)
    command = ["card", str(folder), str(tmp_path / "runs" / "mine-certified"), "--name", "ada/flowers"]
    assert main([*command, "--dataset", "ada/flower-images", "--benchmark", "ada/flower-images"]) == 0
    torch.save(pixels() / 255, tmp_path / "pixels.pt")
    keep, upload, push, load = blocks("docs/how_to/publish.md", "python")
    pushed = [code.replace("ada/flowers", "ada/pushed") for code in (push, load)]
    with local_hub() as hub:
        run_blocks(tmp_path, hub.url, keep, upload, load, READ_BACK, *pushed, READ_BACK)
    files, again = hub.repositories["ada/flowers"], hub.repositories["ada/pushed"]
    expected = model.classify(pixels() / 255).detach()
    for name in ("ada-flowers", "ada-pushed"):
        assert torch.equal(torch.load(tmp_path / f"{name}.pt"), expected)
    for name in ("README.md", "config.json", "model.safetensors", "preprocessor_config.json"):
        assert files[name] == (folder / name).read_bytes()
        assert name == "config.json" or again[name] == files[name]
    assert ".eval_results/certified_accuracy.yaml" not in again  # as the page says: not by push_to_hub

    kept = {name: files[f"records/sigma-0.25/{name}"] for name in ("run.json", "certificates-0.jsonl")}
    assert json.loads(kept["run.json"])["model"]["id"] == "ada/flowers"
    card = ModelCard(files["README.md"].decode())
    assert card.data.model_name == "ada/flowers"
    assert {result.dataset_type for result in card.data.eval_results} == {"ada/flower-images"}
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/certified_accuracy.yaml"]))
    assert [entry.value for entry in entries] == [result.metric_value for result in card.data.eval_results]
    assert SmoothedClassifier.from_pretrained(folder).config.sigma == 0.25
