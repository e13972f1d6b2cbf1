"""Benchmark extraction on e-graphs with known best costs.

Usage: bench_extraction.py DJINN_OPT FOLDER OUT.md

Exit code 1 if a cost is more than 1 % above the best known one, if a run takes too long or too much memory, or if the
written selection is no solution of that cost: this script adds it up again from the e-graph itself.
"""

import json
import lzma
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import tables

# Minutes of CP-SAT found these; both vgg are proved optimal.
BEST_KNOWN = {
    "bert": 0.704720,
    "bert_acyclic": 0.714675,
    "nasrnn": 0.957395,
    "nasrnn_acyclic": 1.068596,
    "vgg": 4.850757,
    "vgg_acyclic": 4.866775,
}
MAX_EXCESS = 0.01
MAX_SECONDS = 2.0
MAX_MIB = 1024.0


def measure(program, path, selection):
    """Run the extraction: its own report, wall time in seconds, peak memory in MiB."""
    start = time.perf_counter()
    command = [program, "extract", "--json", str(path), "--output", str(selection)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = child.stdout.read()
    # wait4 gives this child's memory; the shell's view would be the largest of all children.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    report = json.loads(output) if child.returncode == 0 else None
    return report, seconds, usage.ru_maxrss / 1024


def selection_cost(graph_path, selection_path):
    """The cost of a selection, every e-class paid for once; raises ValueError if it is no solution."""
    with lzma.open(graph_path) as file:
        graph = json.load(file)
    nodes = graph["nodes"]
    choices = json.loads(Path(selection_path).read_text())["choices"]
    # Depth-first from the roots: an e-class that is reached while it is open closes a cycle.
    opened, closed, total = set(), set(), 0.0
    stack = [(root, False) for root in graph["root_eclasses"]]
    while stack:
        eclass, leave = stack.pop()
        if leave:
            closed.add(eclass)
            continue
        if eclass in closed:
            continue
        if eclass in opened:
            raise ValueError(f"a cycle through e-class {eclass}")
        if eclass not in choices or nodes[choices[eclass]]["eclass"] != eclass:
            raise ValueError(f"no choice for e-class {eclass}")
        opened.add(eclass)
        node = nodes[choices[eclass]]
        total += node["cost"]
        stack.append((eclass, True))
        stack.extend((nodes[child]["eclass"], False) for child in node["children"])
    return total


def check_selection(report, graph_path, selection_path):
    """What is wrong with a written selection; None if nothing is."""
    try:
        cost = selection_cost(graph_path, selection_path)
    except ValueError as error:
        return f"no solution: {error}"
    if math.isclose(cost, report["cost"], rel_tol=1e-9, abs_tol=1e-12):
        return None
    return f"the selection costs {cost:.6f}"


def judge(report, seconds, mib, best):
    """What is wrong with a run, in a list."""
    problems = []
    if best is not None and report["cost"] > best * (1 + MAX_EXCESS):
        problems.append(f"more than {MAX_EXCESS:.0%} above the best known cost")
    if best is not None and report["lower_bound"] > best * (1 + 1e-6):
        problems.append("the lower bound is above a known cost")
    if seconds > MAX_SECONDS:
        problems.append(f"more than {MAX_SECONDS} s")
    if mib > MAX_MIB:
        problems.append(f"more than {MAX_MIB:.0f} MiB")
    return problems


def name_of(path):
    """The e-graph's name."""
    return path.name.removesuffix(".json.xz")


def runs(program, folder):
    """Every e-graph of the folder with its best known cost, its measurement, and what is wrong with the selection."""
    paths = sorted(Path(folder).glob("*.json.xz"))
    with tempfile.TemporaryDirectory() as scratch:
        selections = [Path(scratch) / f"{name_of(path)}.json" for path in paths]
        # All runs come before all checks: a child's peak memory is never below this process' size when it starts.
        measured = [measure(program, path, selection) for path, selection in zip(paths, selections)]
        for path, selection, run in zip(paths, selections, measured):
            invalid = check_selection(run[0], path, selection) if run[0] else "the run failed"
            yield path, BEST_KNOWN.get(name_of(path)), run, invalid


def main():
    """Measure every e-graph of the folder."""
    program, folder, out = sys.argv[1:]
    header = ["e-graph", ">cost", ">best known", ">excess", ">bound", ">gap", ">time s", ">peak MiB", "verdict"]
    rows, failures = [], 0
    for path, best, (report, seconds, mib), invalid in runs(program, folder):
        problems = [invalid] if invalid else judge(report, seconds, mib, best)
        failures += bool(problems)
        figures = ["-"] * 5
        if report:
            cost, bound = report["cost"], report["lower_bound"]
            known = ["-", "-"] if best is None else [f"{best:.6f}", f"{cost / best - 1:+.2%}"]
            figures = [f"{cost:.6f}", *known, f"{bound:.6f}", f"{report['gap']:.2%}"]
        verdict = ", ".join(problems) or "ok"
        rows.append([name_of(path), *figures, f"{seconds:.2f}", f"{mib:.0f}", verdict])
    table = tables.render(header, rows)
    line = f"extraction: {len(rows) - failures} ok, {failures} failed"
    tables.write(out, f"# Extraction\n\n{machine.describe('djinn-opt extract')}\n\n{line}\n\n{table}")
    print(table, end="")
    print(line)
    return 1 if failures or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
