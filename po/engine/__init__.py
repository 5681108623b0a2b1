"""A language model's answers: log-probabilities of completions, and what else losses need of them."""
