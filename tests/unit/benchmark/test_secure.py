"""The table of secure aggregation measures a session with a correct sum."""

import pytest

from fedrec_flower.benchmark.secure import measure

SHAPE = (40, 3)


@pytest.mark.parametrize("num_neighbours", [4, None])
def test_measured_session_returns_the_correct_sum(num_neighbours: int | None) -> None:
    row = measure(10, num_neighbours, 0.0, SHAPE)
    assert (row["nodes"], row["neighbours"], row["dropouts"]) == (10, num_neighbours or 9, 0)
    assert row["node_cpu_seconds"] > 0 < row["server_cpu_seconds"]
    # 10 nodes of weight 100 leave 22 bits to a value: half a millionth a node.
    assert row["largest_error_millionths"] < 1e6 * 10 / 2**20


def test_bytes_up_are_vector_keys_and_shares() -> None:
    row = measure(10, 4, 0.0, SHAPE)
    vector = 4 * (40 * 3 + 40 + 4)
    keys, revealed = 2 * 33, 5 * (52 + 8)
    encrypted = (row["bytes_up"] - vector - keys - revealed) / 4
    assert 2 * 52 < encrypted < 400  # two shares, in Fernet's wrapping
    assert row["ratio"] == pytest.approx(row["bytes_up"] / (4 * 40 * 3 + 8 * 40))


def test_dropouts_do_not_change_the_bytes_up() -> None:
    none, some = (measure(10, None, dropout, (2000, 20)) for dropout in (0.0, 0.4))
    assert some["dropouts"] == 4
    assert some["largest_error_millionths"] < 1e6 * 10 / 2**20
    assert some["bytes_up"] == none["bytes_up"]
