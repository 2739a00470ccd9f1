"""Data sources: readers of files and generators that return `Interactions`."""

from fedrec_flower.data.sources.base import Dataset, lists_items
from fedrec_flower.data.sources.files import FileDataset
from fedrec_flower.data.sources.movielens import MovieLens
from fedrec_flower.data.sources.synthetic import Synthetic
from fedrec_flower.data.sources.validation import encode

__all__ = ["Dataset", "FileDataset", "MovieLens", "Synthetic", "encode", "lists_items"]
