"""What is left of clients' updates on their way to the server, and the bytes that it takes."""

from fedrec_flower.compression.base import Compression, RngFor
from fedrec_flower.compression.feedback import Kept, compress_with_feedback
from fedrec_flower.compression.int8 import Int8
from fedrec_flower.compression.low_rank import LowRank
from fedrec_flower.compression.none import NoCompression
from fedrec_flower.compression.sparse_rows import SparseRows
from fedrec_flower.compression.top_k import TopK

__all__ = [
    "Compression",
    "Int8",
    "Kept",
    "LowRank",
    "NoCompression",
    "RngFor",
    "SparseRows",
    "TopK",
    "compress_with_feedback",
]
