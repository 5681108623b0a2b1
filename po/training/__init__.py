"""One optimizer step after the other: batches, the trainer, its log, checkpoints and what is published."""
