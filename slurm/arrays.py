"""Tasks -> arrays of SLURM, with what each waits for."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from experiments.schema_resources import Limits
from slurm.tasks import Task


@dataclass(eq=False)
class Array:
    """Tasks that are queued by one call of sbatch.

    Attributes:
        name: unique within a submission.
        tasks: by their index; an array that follows another element by element has that one's indices.
        needs: the elements (array and index) that must have ended well before any of these may start.
        queued: elements of earlier submissions that must, as ids.
        follows: the array of which element k must have ended well before element k of this may start.
        after: an array that must have ended in whatever way, to keep the number of running elements.
        max_parallel: elements that run at a time.
    """

    name: str
    kind: str
    tasks: dict[int, Task]
    limits: Limits
    needs: tuple[tuple["Array", int], ...] = ()
    queued: tuple[str, ...] = ()
    follows: "Array | None" = None
    after: "Array | None" = None
    max_parallel: int = field(default=1)


def make_arrays(tasks: Sequence[Task], *, max_size: int, max_parallel: int) -> list[Array]:
    """The arrays of a submission, those that others wait for first.

    Args:
        tasks: needed tasks first.
        max_size: elements of one array; SLURM caps the index, so it must not be above MaxArraySize.
        max_parallel: elements of one kind that run at a time.
    """
    arrays: list[Array] = []
    place: dict[Task, tuple[Array, int]] = {}
    for level in _levels(tasks):
        made = _arrays_of_level(level, place, max_size)
        _share(made, max_parallel)
        for array in made:
            number = 1 + sum(other.kind == array.kind for other in arrays)
            array.name = f"{array.kind}-{number}"
            arrays.append(array)
            place |= {task: (array, index) for index, task in array.tasks.items()}
    return arrays


def _levels(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks by the longest chain of tasks above them."""
    depth: dict[Task, int] = {}
    for task in tasks:
        depth[task] = 1 + max((depth[needed] for needed in task.needs), default=-1)
    ordered = sorted(tasks, key=depth.__getitem__)  # stable
    return [list(group) for _, group in groupby(ordered, key=depth.__getitem__)]


def _arrays_of_level(
    level: Sequence[Task], place: dict[Task, tuple[Array, int]], max_size: int
) -> list[Array]:
    groups: dict[object, list[Task]] = {}
    for task in level:
        groups.setdefault(_group(task, place), []).append(task)
    arrays = []
    for group in groups.values():
        first = group[0]
        followed = _followed(first, place)
        if followed is not None:
            indices = {place[next(iter(task.needs))][1]: task for task in group}
            tasks = dict(sorted(indices.items()))
            arrays.append(Array("", first.kind, tasks, first.limits, follows=followed))
            continue
        needs = tuple(sorted((place[task] for task in first.needs), key=lambda p: (p[0].name, p[1])))
        for start in range(0, len(group), max_size):
            chunk = dict(enumerate(group[start : start + max_size]))
            arrays.append(Array("", first.kind, chunk, first.limits, needs, tuple(sorted(first.queued))))
    return arrays


def _group(task: Task, place: dict[Task, tuple[Array, int]]) -> object:
    """Tasks with an equal one can be in one array."""
    followed = _followed(task, place)
    limits = task.limits.model_dump_json()
    if followed is not None:
        return task.kind, limits, followed.name
    return task.kind, limits, task.needs, task.queued


def _followed(task: Task, place: dict[Task, tuple[Array, int]]) -> Array | None:
    """The array that a task follows element by element: only measuring does, each cell its own training."""
    if task.kind not in ("generate", "score") or len(task.needs) != 1 or task.queued:
        return None
    array, _ = place[next(iter(task.needs))]
    return array if array.kind != "prepare" else None


def _share(arrays: Sequence[Array], max_parallel: int) -> None:
    """Divides the allowed number of running elements over the arrays of each kind.

    SLURM counts per array. Where there are more arrays than elements may run, they form as many queues.
    """
    for kind in dict.fromkeys(array.kind for array in arrays):
        alike = [array for array in arrays if array.kind == kind]
        total = sum(len(array.tasks) for array in alike)
        left = max_parallel - len(alike)
        for number, array in enumerate(alike):
            array.max_parallel = 1 + max(0, left) * len(array.tasks) // total
            if number >= max_parallel:
                array.after = alike[number - max_parallel]
