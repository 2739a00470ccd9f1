"""Secure aggregation: the server learns the sum over the nodes and no single summand.

SecAgg+ of Bell et al. 2020 ("Secure single-server aggregation with (poly)logarithmic overhead"),
which is SecAgg of Bonawitz et al. 2017 ("Practical secure aggregation for privacy-preserving
machine learning") on a graph of neighbours instead of all pairs. A round has four exchanges:

1. advertise: each node generates two key pairs and sends the public keys.
2. share: each node draws the seed of its self mask. It splits this seed and its private masking key
   among itself and its neighbours by Shamir's scheme. The server forwards the encrypted shares.
3. mask: each node trains, and sends its integers plus its self mask, plus or minus a pairwise mask
   for each neighbour that sent shares.
4. unmask: for each node whose vector arrived, its neighbours reveal shares of the seed of its self
   mask. For each other node, they reveal shares of its masking key. No member's shares of both
   secrets are revealed. The server removes the masks from the sum.

Guarantee: an honest-but-curious server that colludes with fewer than a threshold of any node's
neighbours learns about a node's vector only what the sum over all nodes reveals. A node does not
reply to a server that asks for less than the node's own settings demand (`Rules`). Before a member
reveals a share, it adds its own number of clients and those of its neighbours, which they have
authenticated, and refuses if the total is below `min_clients`.

Not protected: information in the sum itself, and sums of different rounds whose cohorts differ by
few clients. A server that invents members or replaces public keys is not detected, because the keys
are not certified (an active adversary requires signed keys, and then the numbers of clients can be
trusted too). Nodes can send arbitrary values, or claim more clients than they have.

Keys, seeds, coefficients of shares and the graph come from the operating system's generator, in
simulations too. Results are still reproducible, because the masks cancel exactly.
"""

from fedrec_flower.communication.secure_aggregation.secagg import (
    NoSecureAggregation,
    SecAgg,
    SecureAggregation,
)

__all__ = ["NoSecureAggregation", "SecAgg", "SecureAggregation"]
