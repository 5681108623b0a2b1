"""Speed and memory, side by side with peers in one run; ratios, never timed tests."""
