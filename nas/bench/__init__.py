"""Our libraries beside other engines, in one run on one machine: what `nas bench` does.

`cases` makes what is measured, `engines` runs it, each engine in a paused process of its own (`processes`), `paired`
takes turns, `roofline` measures what the machine can do, `table` writes it down. `costs` prices number formats and
kernels.
"""

from nas.bench.cases import base_cases, run_cases
from nas.bench.costs import cost_results, costs_json, costs_text
from nas.bench.engines import OURS, PEERS, installed
from nas.bench.paired import Results, Rounds, measured
from nas.bench.table import results_text, save_results

__all__ = [
    "OURS", "PEERS", "Results", "Rounds", "base_cases", "cost_results", "costs_json",
    "costs_text", "installed", "measured", "results_text", "run_cases", "save_results",
]  # fmt: skip
