"""Secure aggregation: the server learns the sum over the nodes and no summand.

SecAgg+ of Bell et al. 2020 ("Secure single-server aggregation with (poly)logarithmic overhead"),
which is SecAgg of Bonawitz et al. 2017 ("Practical secure aggregation for privacy-preserving
machine learning") on a graph of neighbours instead of all pairs. A round takes four exchanges:

1. advertise: each node draws two key pairs and tells the public ones.
2. share: each node draws the seed of its self mask and splits it, and its private masking key,
   among itself and its neighbours by Shamir's scheme; the server carries the encrypted shares.
3. mask: each node trains, and sends its integers plus its self mask plus or minus a mask it has in
   common with each neighbour who shared.
4. unmask: of each node that sent, neighbours reveal shares of the self mask's seed; of each that
   did not, shares of its masking key. Of nobody both. The server removes the masks of the sum.

What is protected: the server, honest but curious, together with fewer than a threshold of any
node's neighbours, learns nothing of a node's vector but what the sum over all nodes tells. A server
that asks for less than a node's own settings demand (`Rules`) gets nothing from it. Before a member
reveals a share, it adds its neighbours' numbers of clients, which they have authenticated, to its
own, and refuses if the total is below `min_clients`.

What is not protected: what the sum itself tells, and sums of different rounds whose cohorts differ
by few clients; a server that invents members or swaps public keys, for nobody certifies these (an
active adversary needs signed keys, and then the numbers of clients are to be trusted too); nodes
that send garbage, or name more clients than they have.

Keys, seeds, coefficients of shares and the graph come from the operating system's generator, in
simulations too. Nothing is lost by it: masks cancel to the bit, so results repeat all the same.
"""

from fedrec_flower.communication.secure_aggregation.secagg import NoSecureAggregation, SecAgg

__all__ = ["NoSecureAggregation", "SecAgg"]
