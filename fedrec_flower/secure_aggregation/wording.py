"""What summary.json says of masked sums."""

from typing import Any


def facts() -> dict[str, Any]:
    """What masks hide from the server, and every value that they do not hide."""
    return {
        "secure_aggregation": {
            "covers": "what the clients of one node send in training: of a round, the server reads "
            "the sum over all nodes alone",
            "does_not_cover": [
                "the sum itself, which is exact unless privacy adds noise: of updates or "
                "statistics, weights, training losses, numbers of clients and of clipped values, "
                "and row weights where rows are divided by them",
                "sums of different rounds: where few clients differ, they tell of these clients; "
                "and the sums of many rounds together give single clients away, because the "
                "server knows who was in each cohort (attack=interaction_inference "
                "attack.method=separation)",
                "which clients of a node were lost, and the kind of reason, such as not_finite: "
                "sent in clear",
                "the evaluation sums that each node sends: in clear and exact, of a single client "
                "where it hosts one",
                "which clients each node hosts, and when its messages arrive; their sizes are the "
                "same for all nodes",
                "a server that departs from the protocol: it gets two sums of the same parameters "
                "by another name of the run or by the number of the next round, and it can invent "
                "nodes, or give a node fewer neighbours than num_neighbours, down to min_nodes - 1",
                "nodes that collude with the server, from secure_aggregation.threshold on",
                "metrics, tables and files of the run folder: they are made without masks",
            ],
        }
    }
