"""The node: clients, their state, and the steps between update and reply."""
