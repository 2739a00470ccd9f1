"""The server: round loop, dispatch, evaluation, selection, checkpoints."""
