"""The distances of each image to all others, added up without computing any one of them.

With a_i = ‖x_i‖²_v, A = Σ a_j and S = Σ x_j, the sum of the distances of image i is
``Σ_j d(x_i, x_j) = n a_i + A - 2 x_i·(v∘S)``: two passes over n rows in place of n² products.
"""

import torch

from ..common.precision import exact_arithmetic
from .panels import Columns, take

_AT_ONCE = 256  # rows converted to float64 together


@exact_arithmetic()
def distance_totals(
    rows: torch.Tensor, columns: Columns, centre: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the sum of the distances of each row to all rows.

    Parameters
    ----------
    rows
        Stored rows, [n, length].
    columns
        The head, prepared for the dtype of the rows; its weights may have any sign.
    centre
        A row near the others, float32 [length] in stored units, such as one of them: nearly equal
        rows would cancel without it. None takes the first row.

    Returns
    -------
    Tensor of shape [n], float64
        Exactly 0 if all rows are equal. The order of the rows changes it by rounding alone.
    """
    count = len(rows)
    totals = torch.zeros(count, dtype=torch.float64, device=rows.device)
    if not count:
        return totals
    middle = (rows[:1] if centre is None else centre[None]).to(torch.float64)
    norms, products = torch.zeros_like(totals), torch.zeros_like(totals)
    for number, (panel, roots) in enumerate(zip(columns.panels, columns.roots, strict=True)):
        signs = None if columns.signs is None else columns.signs[number]
        room = torch.empty(
            min(count, _AT_ONCE), len(roots), dtype=torch.float64, device=rows.device
        )
        zero = take(middle, panel, torch.empty_like(room[:1]))
        sums = torch.zeros(len(roots), dtype=torch.float64, device=rows.device)
        parts = range(0, count, _AT_ONCE)
        for start in parts:
            some = rows[start : start + _AT_ONCE]
            sums += take(some, panel, room[: len(some)]).sub_(zero).mul_(roots).sum(0)
        weighted = sums if signs is None else sums * signs
        for start in parts:
            here = slice(start, min(start + _AT_ONCE, count))
            some = take(rows[here], panel, room[: here.stop - start]).sub_(zero).mul_(roots)
            products[here] += some @ weighted
            squares = some.square()
            norms[here] += squares.sum(1) if signs is None else squares @ signs.to(torch.float64)
    return norms * count + norms.sum() - 2 * products
