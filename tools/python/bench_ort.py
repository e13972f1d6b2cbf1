"""Time original against optimised ONNX models in ONNX Runtime, side by side in one process.

Usage: bench_ort.py CASES_JSON OUT.md [--seconds S] [--enforce]

Both models run at ORT_ENABLE_ALL, one thread, sequential, with inputs and outputs bound. Runs alternate, and so does who
goes first; the speed-up is the median of the ratios of neighbouring runs, which other load on the machine hits alike.
"""

import argparse
import gc
import json
import math
import statistics
import sys
import time
from pathlib import Path

import machine
import numpy as np
import onnxruntime
import ort
import tables
from arrays import difference, read_npz

WARM_UP = 20
MIN_PAIRS = 200
# With --enforce: what the speed-ups must be.
MIN_MEAN = 1.15
MIN_WORST = 0.97


class Side:
    """One model, ready to run."""

    def __init__(self, path, arrays):
        self.session = ort.session(path)
        self.binding = self.session.io_binding()
        for name, array in ort.feed(self.session, arrays).items():
            self.binding.bind_cpu_input(name, np.asarray(array, order="C"))
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name, "cpu")

    def run(self):
        """Time of one run in nanoseconds."""
        start = time.perf_counter_ns()
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter_ns() - start

    def results(self):
        """Results of the last run by name."""
        names = [o.name for o in self.session.get_outputs()]
        return dict(zip(names, self.binding.copy_outputs_to_cpu()))


def disagreement(ours, record):
    """The first result of ours that is not the recorded one, if one is not."""
    expected, actual = read_npz(record["dir"], "expected"), ours.results()
    for name, key in record["results"].items():
        message = difference(expected[key], actual[name])[0]
        if message:
            return f"'{key}': {message}"
    return None


def race(original, ours, seconds):
    """Times of both in nanoseconds, run by run."""
    for _ in range(WARM_UP):
        original.run()
        ours.run()
    first, second = [], []
    deadline = time.perf_counter() + seconds
    while len(first) < MIN_PAIRS or time.perf_counter() < deadline:
        if len(first) % 2 == 0:
            first.append(original.run())
            second.append(ours.run())
        else:
            second.append(ours.run())
            first.append(original.run())
    return first, second


def measure(record, seconds):
    """One model's figures."""
    inputs = read_npz(record["dir"], "inputs")
    arrays = {argument: inputs[key] for argument, key in record["feeds"].items()}
    arrays |= {argument: np.load(path) for argument, path in record["initial"].items()}
    original = Side(Path(record["dir"]) / "model.onnx", inputs)
    ours = Side(record["onnx"], arrays)
    first, second = race(original, ours, seconds)
    return {
        "model": record["case"],
        "original_us": statistics.median(first) / 1e3,
        "ours_us": statistics.median(second) / 1e3,
        "speedup": statistics.median(a / b for a, b in zip(first, second)),
        "speedup_of_minima": min(first) / min(second),
        "nodes": record["onnx_nodes"],
        "pairs": len(first),
        "problem": disagreement(ours, record),
    }


def main():
    """Race every model of a file of records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0, help="time a model, at least 200 runs each")
    parser.add_argument("--enforce", action="store_true", help=f"fail unless mean >= {MIN_MEAN}, worst >= {MIN_WORST}")
    args = parser.parse_args()
    onnxruntime.set_default_logger_severity(ort.QUIET)
    records = [json.loads(line) for line in args.cases.read_text().splitlines()]
    gc.disable()
    header = ["model", ">original µs", ">ours µs", ">speed-up", ">of minima", ">nodes", ">pairs", "note"]
    rows, results = [], []
    for record in records:
        if "onnx" not in record:
            rows.append([record["case"], *["-"] * 6, f"not written: {record['message'][:120]}"])
            continue
        r = measure(record, args.seconds)
        results.append(r)
        times = [f"{r['original_us']:.1f}", f"{r['ours_us']:.1f}", f"{r['speedup']:.3f}"]
        rows.append([r["model"], *times, f"{r['speedup_of_minima']:.3f}", r["nodes"], r["pairs"], r["problem"] or ""])
    speedups = [r["speedup"] for r in results]
    mean = math.exp(statistics.fmean(math.log(s) for s in speedups)) if speedups else 0.0
    worst = min(results, key=lambda r: r["speedup"], default={"model": "-", "speedup": 0.0})
    opset = records[0]["opset"] if records else "-"
    line = f"ort (opset {opset}): geometric mean {mean:.3f}, worst {worst['speedup']:.3f} ({worst['model']})"
    line += f", {len(results)} of {len(records)} models"
    where = machine.describe(f"onnxruntime {onnxruntime.__version__}", "1 thread")
    table = tables.render(header, rows)
    tables.write(args.out, f"# Optimised against original models in ONNX Runtime\n\n{where}\n\n{line}\n\n{table}")
    print(table, end="")
    print(line)
    slow = mean < MIN_MEAN or worst["speedup"] < MIN_WORST
    bad = len(results) < len(records) or any(r["problem"] for r in results)
    return 1 if bad or (args.enforce and slow) else 0


if __name__ == "__main__":
    sys.exit(main())
