"""Largest load as a mixed integer programme [Tarnawski 2020, sec. 5.2], for splits that need not be contiguous.

    min T   s.t.  sum_i x_vi = 1;   y_ei >= x_ui - x_vi for groups u, v of net e;
                  sum_v t_vi x_vi + sum_e c_e y_ei <= T;   sum_v s_v x_vi <= M

Equal devices make solutions that differ in names only: group v may use accelerator i only if i <= v, likewise CPUs.
"""

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from nas.decisions.placement.graphs.contraction import contract
from nas.decisions.placement.graphs.graph_file import OperatorGraph


def programme(graph: OperatorGraph, *, upper: float, seconds: float) -> tuple[float, dict[int, int] | None]:
    """A lower bound on the largest load of any split, and a split that is better than `upper` if one came up."""
    groups = contract(graph, fuse_circles=False)
    count, devices, nets = len(groups), graph.accelerators + graph.cpus, len(groups.nets)
    x, y = count * devices, nets * graph.accelerators
    rows: list[tuple[dict[int, float], float, float]] = []
    for v in range(count):
        rows.append(({v * devices + d: 1.0 for d in range(devices)}, 1.0, 1.0))
    for d in range(devices):
        fast = d < graph.accelerators
        times = groups.accelerator_time if fast else groups.cpu_time
        load = {v * devices + d: float(times[v]) for v in range(count)} | {x + y: -1.0}
        if fast:
            load |= {x + e * graph.accelerators + d: cost for e, (_, cost) in enumerate(groups.nets)}
            rows.append(
                ({v * devices + d: float(groups.size[v]) for v in range(count)}, -np.inf, graph.accelerator_bytes)
            )
        rows.append((load, -np.inf, 0.0))
    for e, (touched, _) in enumerate(groups.nets):
        for d in range(graph.accelerators):
            at = x + e * graph.accelerators + d
            ring = zip(touched, (*touched[1:], touched[0]), strict=True)
            rows += [({at: 1.0, u * devices + d: -1.0, v * devices + d: 1.0}, 0.0, np.inf) for u, v in ring]
    highest = np.ones(x + y + 1)
    highest[-1] = upper
    for v in range(count):
        for d in range(devices):
            later = d > v if d < graph.accelerators else d - graph.accelerators > v
            if later or (d < graph.accelerators and not groups.supported[v]):
                highest[v * devices + d] = 0
    found = milp(
        c=np.r_[np.zeros(x + y), 1.0],
        constraints=_constraint(rows, x + y + 1),
        bounds=Bounds(np.zeros(x + y + 1), highest),
        integrality=np.r_[np.ones(x), np.zeros(y + 1)],
        options={"time_limit": seconds, "mip_rel_gap": 1e-7},
    )
    bound = float(found.mip_dual_bound) if found.mip_dual_bound is not None else 0.0
    if found.status == 2:
        bound = upper
    if found.x is None:
        return bound, None
    return bound, groups.spread(found.x[:x].reshape(count, devices).argmax(1))


def _constraint(rows: list[tuple[dict[int, float], float, float]], width: int) -> LinearConstraint:
    data = [value for row, _, _ in rows for value in row.values()]
    columns = [column for row, _, _ in rows for column in row]
    starts = np.cumsum([0, *(len(row) for row, _, _ in rows)])
    matrix = csr_array((data, columns, starts), shape=(len(rows), width))
    return LinearConstraint(matrix, np.array([low for _, low, _ in rows]), np.array([high for _, _, high in rows]))
