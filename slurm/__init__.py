"""Everything that knows SLURM; nothing below imports it."""
