"""Losses as pure functions of sequence log-probabilities; one value per pair, never reduced."""
