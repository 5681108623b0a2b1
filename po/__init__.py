"""Training core: preference-optimization losses, the table of methods, log-probabilities and the trainer."""
