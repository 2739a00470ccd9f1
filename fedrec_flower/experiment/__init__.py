"""One experiment: from the configuration to the run folder."""
