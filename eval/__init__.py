"""Generation and metrics: prepared test sets and models in, generations and scores out; never sees a loss."""
