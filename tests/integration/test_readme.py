"""What the README prints is what runs."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from fedrec_flower.models.base import Recommender

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_the_printed_model_is_a_model_as_it_stands() -> None:
    source = next(block for block in blocks("python") if "class Popular" in block)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102  # the README is ours
    model = names["Popular"](num_items=3)
    assert isinstance(model, Recommender)
    bias = np.array([[1.0], [3.0], [2.0]], np.float32)
    model.load({"bias.weight": bias})
    assert model.score_all(torch.arange(2)).tolist() == [[1.0, 3.0, 2.0]] * 2
    start = model.initial(model.shared_names(), np.random.default_rng(1))
    assert start["bias.weight"].shape == (3, 1)


def test_the_printed_yaml_names_the_printed_class() -> None:
    text = next(block for block in blocks("yaml") if "popular" in block)
    node = DictConfig(OmegaConf.create(text))["model"]
    assert node == {"_target_": "fedrec_flower.models.popular.Popular", "name": "popular"}


def test_every_figure_and_file_the_readme_names_is_there() -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()):
        assert (README.parent / target).is_file(), target
    assert "@" not in re.sub(r"@\d+|# @package", "", README.read_text()), "a placeholder is left"
