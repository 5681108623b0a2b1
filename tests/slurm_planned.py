"""The jobs of a small study, and the arrays that tasks become, for the tests of the planning."""

from manifests import loaded

from slurm.arrays import make_arrays


def jobs_of(folder, **changes):
    return list(loaded(folder, **changes).graph.jobs.values())


def arrays(tasks, max_size=1000, max_parallel=1000):
    return {a.name: a for a in make_arrays(tasks, max_size=max_size, max_parallel=max_parallel)}
