"""Rows of a batch in groups of similar length: less padding is computed, and the result is the same."""

from jaxtyping import Int
from torch import Tensor

MOST_GROUPS = 4
ROWS_A_GROUP = 8  # fewer keep a device less busy than the padding that they save


def group_count(n_rows: int) -> int:
    """How many groups the rows of a batch make, whatever their lengths."""
    return max(1, min(MOST_GROUPS, n_rows // ROWS_A_GROUP))


def length_groups(
    attention_mask: Int[Tensor, "rows length"], n_groups: int | None = None
) -> list[tuple[Tensor, int]]:
    """The rows of a padded batch, short ones first.

    Args:
        attention_mask: 1 where a token is.
        n_groups: at most as many as rows; ``group_count`` of them unless given.

    Returns:
        For each group its rows and the position after the last token of any; all beyond is padding.
    """
    positions = attention_mask.new_tensor(range(1, attention_mask.shape[1] + 1))
    ends = (attention_mask * positions).amax(dim=1)
    n_groups = n_groups or group_count(len(ends))
    longest = ends.sort(stable=True)
    groups = zip(longest.indices.tensor_split(n_groups), longest.values.tensor_split(n_groups), strict=True)
    return [(rows, int(values[-1])) for rows, values in groups]
