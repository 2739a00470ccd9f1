"""What every `conf/dataset/*.yaml` must offer; a new dataset is found by its yaml."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fedrec_flower.data.sources.base import Dataset
from fedrec_flower.data.sources.download import UnreachableError
from fedrec_flower.data.sources.movielens import RELEASES, TextFile

CONF = Path(__file__).parents[2] / "conf" / "dataset"
YAMLS = sorted(CONF.glob("*.yaml"))
RATINGS = [(1, 2, 3, 10), (10, 2, 4, 20), (2, 33, 5, 30), (2, 4, 1, 30)]

Make = Callable[..., Dataset]


def write(file: TextFile, folder: Path, rows: list[dict[str, object]]) -> None:
    """Write rows, in our words, the way a file of a layout has them; other columns hold "0"."""
    words = {theirs: ours for ours, theirs in file.columns.items()}
    names = file.names or tuple(file.columns.values())
    lines = [] if file.names else [file.separator.join(names)]
    for row in rows:
        cells = (str(row.get(words.get(name, name), "0")) for name in names)
        lines.append(file.separator.join(cells))
    text = "\n".join(lines) + "\n"
    (folder / file.name).write_text(text, encoding=file.encoding)


def fixture_path(name: str, folder: Path) -> Path:
    """Tiny data for a dataset that reads a path."""
    columns = ("user", "item", "rating", "timestamp")
    if name == "file":
        lines = ["user_id,item_id,rating,timestamp", *(",".join(map(str, r)) for r in RATINGS)]
        (folder / "some.csv").write_text("\n".join(lines))
        return folder / "some.csv"
    layout = RELEASES[name].layouts[0]
    write(layout.ratings, folder, [dict(zip(columns, row, strict=True)) for row in RATINGS])
    titles: list[dict[str, object]] = [
        {"item": item, "title": f"Film {item} (1999)", "genres": "War|Drama"} for item in (2, 4, 33)
    ]
    write(layout.items, folder, titles)
    return folder


@pytest.fixture(params=YAMLS, ids=lambda path: path.stem)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """The options of one yaml, with data that need no network."""
    content = OmegaConf.to_container(OmegaConf.load(request.param))
    assert isinstance(content, dict)
    options = {str(key): value for key, value in content.items()}
    if options["name"] in {*RELEASES, "file"}:
        options["path"] = str(fixture_path(options["name"], tmp_path))
    return options


@pytest.fixture
def make(options: dict[str, Any]) -> Make:
    """Make the dataset of one yaml, some options overridden."""

    def build(**overridden: Any) -> Dataset:
        made: Dataset = instantiate({**options, **overridden})
        return made

    return build


def test_columns_have_the_promised_types_and_lengths(make: Make) -> None:
    try:
        data = make().load()
    except UnreachableError as error:
        pytest.skip(str(error))
    assert data.user.dtype == data.item.dtype == np.int32
    assert data.user.shape == data.item.shape == (len(data),)
    if data.rating is not None:
        assert data.rating.dtype == np.float32
        assert data.rating.shape == (len(data),)
        assert np.isfinite(data.rating).all()
    if data.timestamp is not None:
        assert data.timestamp.dtype == np.int64
        assert data.timestamp.shape == (len(data),)
        assert (data.timestamp >= 0).all()


def test_codes_follow_the_sorted_original_ids(make: Make) -> None:
    data = make().load()
    for codes, ids in ((data.user, data.user_ids), (data.item, data.item_ids)):
        assert ids.dtype == np.int64 or ids.dtype.kind == "U"
        assert (ids[1:] > ids[:-1]).all()
        assert 0 <= codes.min() <= codes.max() < len(ids)
    assert np.unique(data.user).size == data.num_users


def test_no_pair_stands_twice(make: Make) -> None:
    data = make().load()
    pairs = data.user.astype(np.int64) * data.num_items + data.item
    assert np.unique(pairs).size == len(data)


def test_tables_have_one_row_per_code(make: Make) -> None:
    data = make().load()
    for table, size in ((data.users, data.num_users), (data.items, data.num_items)):
        pd.testing.assert_index_equal(table.index, pd.RangeIndex(size), exact=True)
    if "genres" in data.items:
        genres = data.items["genres"]
        assert all(text.split("|") == sorted(text.split("|")) for text in genres)


def test_loading_twice_gives_the_same(make: Make) -> None:
    one, other = make().load(), make().load()
    for field in ("user", "item", "rating", "timestamp", "user_ids", "item_ids"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    pd.testing.assert_frame_equal(one.items, other.items)


def test_the_fingerprint_is_stable_json(make: Make) -> None:
    fingerprint = make().fingerprint()
    assert json.loads(json.dumps(fingerprint)) == fingerprint
    assert make().fingerprint() == fingerprint
    assert all(isinstance(x, str | int | float | None) for x in fingerprint.values())


def test_the_fingerprint_knows_every_option_but_the_cache(
    make: Make, options: dict[str, Any], tmp_path: Path
) -> None:
    fingerprint = make().fingerprint()
    numbers = {key: value + 1 for key, value in options.items() if isinstance(value, int | float)}
    assert numbers
    for key, value in numbers.items():
        assert make(**{key: value}).fingerprint() != fingerprint, key
    assert make(cache_dir=str(tmp_path / "elsewhere")).fingerprint() == fingerprint


def test_the_cache_lies_where_it_is_told(make: Make, tmp_path: Path) -> None:
    assert make(cache_dir=str(tmp_path / "here")).cache_path == tmp_path / "here"
    assert make().cache_path.name == "fedrec_flower"


def test_the_yaml_names_the_dataset(make: Make, options: dict[str, Any]) -> None:
    assert make().name == options["name"] == make().load().name
