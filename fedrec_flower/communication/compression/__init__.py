"""Compression of client updates."""

from fedrec_flower.communication.compression.base import Compression, NoCompression
from fedrec_flower.communication.compression.int8 import Int8
from fedrec_flower.communication.compression.low_rank import LowRank
from fedrec_flower.communication.compression.sparse_rows import SparseRows
from fedrec_flower.communication.compression.top_k import TopK

__all__ = ["Compression", "Int8", "LowRank", "NoCompression", "SparseRows", "TopK"]
