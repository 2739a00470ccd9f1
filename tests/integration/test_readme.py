"""The code blocks and references of the README are valid."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from fedrec_flower.models.base import Recommender
from fedrec_flower.testing import check_model

README = Path(__file__).parents[2] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def test_readme_model_passes_check_model() -> None:
    source = next(block for block in blocks("python") if "class Popular" in block)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(compile(source, "README.md", "exec"), names)  # noqa: S102  # the README is ours
    model = names["Popular"](num_items=3)
    assert isinstance(model, Recommender)
    bias = np.array([[1.0], [3.0], [2.0]], np.float32)
    model.load({"bias.weight": bias})
    assert model.score_all(torch.arange(2)).tolist() == [[1.0, 3.0, 2.0]] * 2
    check_model(names["Popular"])
    lines = [line for line in source.splitlines() if line.strip() and not line.startswith("#")]
    code = [line for line in lines if '"""' not in line]
    assert len(code) <= 10, "the README promises a model in ten lines"


def test_readme_yaml_names_the_readme_class() -> None:
    text = next(block for block in blocks("yaml") if "popular" in block)
    node = DictConfig(OmegaConf.create(text))["model"]
    assert node == {"_target_": "fedrec_flower.models.popular.Popular", "name": "popular"}


def test_every_figure_and_file_of_the_readme_exists() -> None:
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README.read_text()):
        assert (README.parent / target).is_file(), target
    assert "@" not in re.sub(r"@\d+|# @package|callbacks@callbacks", "", README.read_text()), (
        "a placeholder is left"
    )
