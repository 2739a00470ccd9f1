"""Datasets: each gives frozen `Interactions`, whatever file or law they come from."""

from fedrec_flower.datasets.base import Dataset, lists_items
from fedrec_flower.datasets.encoding import encode
from fedrec_flower.datasets.files import FileDataset
from fedrec_flower.datasets.movielens import MovieLens
from fedrec_flower.datasets.synthetic import Synthetic

__all__ = ["Dataset", "FileDataset", "MovieLens", "Synthetic", "encode", "lists_items"]
