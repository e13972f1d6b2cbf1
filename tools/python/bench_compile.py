"""Tabulate how long Djinn takes on every model: the fastest of several runs.

Usage: bench_compile.py OUT.md CASES_JSON...
"""

import json
import sys
from pathlib import Path

import machine
import tables

STAGES = ["import", "optimise", "write"]


def main():
    """Read the records of all runs and print the least time of every stage."""
    out, *files = sys.argv[1:]
    least, nodes, peaks = {}, {}, {}
    for file in files:
        for line in Path(file).read_text().splitlines():
            r = json.loads(line)
            key = (r["case"], r["format"])
            nodes[key] = (r.get("nodes_before"), r.get("nodes_after"))
            for stage in STAGES:
                found = r["stages"].get(stage)
                if found:
                    times = least.setdefault(key, {})
                    times[stage] = min(times.get(stage, float("inf")), found["seconds"])
                    peaks[key] = max(peaks.get(key, 0.0), found["peak_mib"] or 0.0)
    header = ["model", "format", ">nodes", ">after", *[f">{s} ms" for s in STAGES], ">total ms", ">peak MiB"]
    rows = []
    for key, times in least.items():
        cells = [f"{times[s] * 1e3:.1f}" if s in times else "-" for s in STAGES]
        rows.append([*key, *nodes[key], *cells, f"{sum(times.values()) * 1e3:.1f}", f"{peaks[key]:.0f}"])
    total = sum(sum(t.values()) for t in least.values())
    line = f"compile: {len(rows)} models, {total:.2f} s in all (fastest of {len(files)} runs a stage)"
    table = tables.render(header, rows)
    tables.write(out, f"# Time to compile\n\n{machine.describe('one process at a time')}\n\n{line}\n\n{table}")
    print(table, end="")
    print(line)


if __name__ == "__main__":
    main()
