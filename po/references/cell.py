"""The reference of a cell: values stored beside it, or the model that it starts from, asked in every step."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from po.faults import InputFault
from po.methods.hyperparameters import ParamValue
from po.methods.method import Method
from po.references.sources import LiveReference, Reference, StoredReference
from po.rows import Row
from po.settings import Recipe, TrainSettings
from po.training.collate import ROW_COLUMNS


def completed_rows(settings: TrainSettings, recipe: Recipe, rows: list[Row], model: Any) -> list[Row]:
    """The rows with all that the method needs of them, stored values of the reference too.

    Args:
        settings: the cell.
        recipe: its training.
        rows: as they were prepared.
        model: the policy before its first step, and before it gets a new adapter.

    Raises:
        InputFault: stored values of other rows or weights; rows from which the method cannot learn.
    """
    method, params = recipe.method, recipe.params
    check_columns(rows, method.needed(params), method.name)
    rows = with_derived(method, params, rows, model, settings.seed)
    return _stored(settings, recipe, rows, model) if method.stored_reference(params) else rows


def cell_reference(
    settings: TrainSettings, recipe: Recipe, policy: Any, start: Callable[[], Any]
) -> Reference | None:
    """What knows the reference's values; None where the method needs none.

    A reference that follows the policy cannot be the model with its adapters off: it is a copy of them then.

    Args:
        settings: the cell.
        recipe: its training.
        policy: before its first step, with its adapters.
        start: loads the same model once more.
    """
    method = recipe.method
    if not method.needs_reference:
        return None
    if not method.needs_live_reference:
        return StoredReference()
    if not settings.model.get("adapter"):
        return live_reference(method, policy, start())
    from po.models.adapters import adapter_reference

    kind = settings.model["adapter"]["reference"]
    return adapter_reference(policy, "copy" if kind == "off" and method.reference_sync else kind)


def with_derived(
    method: Method, params: Mapping[str, ParamValue], rows: list[Row], model: Any, seed: int
) -> list[Row]:
    """The rows with what the method reads of them beyond the data, fixed before training.

    Args:
        method: whose ``needed`` says what.
        params: its hyperparameters and options.
        rows: token ids.
        model: the policy before its first step.
        seed: of what is drawn.

    Raises:
        InputFault: rows from which the method cannot learn.
    """
    needed = method.needed(params)
    if "policy_mismatched" in needed:
        from po.references.mismatch import with_mismatched

        rows = with_mismatched(rows)
    if "density_ratio" in needed:
        from po.references.density import with_density_ratios

        rows = with_density_ratios(rows, model, params, seed)
    return rows


def check_columns(rows: Sequence[Row], needed: Sequence[str], method: str) -> None:
    """Refuses rows that lack a value which the method reads from the data.

    Args:
        rows: token ids with what else the data brought.
        needed: as ``Method.needed`` has it.
        method: its name, for the message.

    Raises:
        InputFault: a column is missing; says which and in which row.
    """
    for name in (column for column in ROW_COLUMNS if column in needed):
        lacking = [(index, row) for index, row in enumerate(rows) if row.get(name) is None]
        if not lacking:
            continue
        index, row = lacking[0]
        which = f"row '{row['id']}'" if "id" in row else f"row {index}"
        if len(lacking) < len(rows):
            raise InputFault(
                f"{method} reads {name}, and {which} of the training data has none ({len(lacking)} of "
                f"{len(rows)} rows have not); give them one, or leave them out"
            )
        sampled = "" if name == "win_probability" else "; sampled pairs come with the scores of their scorer"
        raise InputFault(
            f"{method} reads {name}, which the training data lack; name its column under 'columns'{sampled}"
        )


def live_reference(method: Method, policy: Any, other: Any) -> LiveReference:
    """A model of its own as reference, frozen; one that can follow the policy where the method wants that.

    Args:
        method: decides whether it moves.
        policy: the model that is trained.
        other: the reference; it is changed in place.
    """
    from po.engine.forward import attach_engine
    from po.references.moving import MovingReference

    attach_engine(other.requires_grad_(False).eval().to(policy.device))
    if not method.reference_sync:
        return LiveReference(other)
    return MovingReference(other, lambda: list(zip(other.parameters(), policy.parameters(), strict=True)))


def _stored(settings: TrainSettings, recipe: Recipe, rows: list[Row], model: Any) -> list[Row]:
    """The rows with the reference's values, which one process computes where they are missing."""
    from accelerate import PartialState

    from po.reference import compute, load_reference

    if settings.reference is None:
        raise InputFault(f"{settings.folder}: the cell names no reference; run experiments.run again")
    state = PartialState()
    if state.is_main_process:
        compute(settings.reference)
    state.wait_for_everyone()  # the others look for the files only now: NFS remembers what was missing
    method = recipe.method
    return load_reference(
        settings.reference,
        rows,
        model,
        recipe.training.precision,
        method.stored_reference(recipe.params),
        "ranked" if method.data == "ranked" else "unpaired",
    )
