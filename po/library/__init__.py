"""The trainer as a library: text data sets, TRL's names, references made on the spot."""
