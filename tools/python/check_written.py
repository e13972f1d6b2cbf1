"""Check written ONNX models with onnx.checker and ONNX Runtime, and compare node counts.

Usage: check_written.py CASES_JSON OUTDIR [--label NAME] [--counts] [--enforce FILE] [--min-ok N] [--brief]

CASES_JSON is what `djinn-harness cases --json` wrote; OUTDIR gets NAME.md and NAME.json with dashes for blanks.

Status of a case:
  ok               the written model is valid, runs, and gives the recorded results
  wrong            it gives others, although the original gives the recorded ones
  invalid          onnx.checker refuses it, although it accepts the original
  no-kernel        ONNX Runtime refuses it, although it runs the original
  crash            the process died
  ort-unsupported  ONNX Runtime refuses the original, too
  ort-differs      the original, too, gives other results than the recorded ones in ONNX Runtime
  not-written      there is no written model (the harness says why)
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import ort
import tables
from arrays import difference, read_npz
from batches import run as run_batches

FAILURES = ["wrong", "invalid", "no-kernel", "crash"]
STATUSES = ["ok", *FAILURES, "ort-unsupported", "ort-differs", "not-written"]
LEVELS = onnxruntime.GraphOptimizationLevel
STATE = ("mutated_buffer.", "mutated_input.")


def first_line(error):
    """A short form of an exception."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]


def validate(path):
    """What onnx.checker says against a model, if anything."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # noqa: BLE001 - the checker raises many kinds
        return first_line(error)
    return None


def compare(results, expected, pairs):
    """The first difference between results and recorded arrays, and the largest relative error."""
    worst = 0.0
    for name, key in pairs:
        if name not in results:
            return f"no output '{name}'", worst
        message, error = difference(expected[key], results[name])
        worst = max(worst, error or 0.0)
        if message:
            return f"'{key}': {message}", worst
    return None, worst


def output_pairs(record, expected):
    """Outputs and the recorded arrays they are compared with: as the harness paired them, else by name."""
    pairs = list(record.get("results", {}).items())
    return pairs or [(key, key) for key in expected if not key.startswith(STATE)]


def run_written(record, inputs, expected):
    """Run the written model: (refusal, difference, largest error)."""
    arrays = {argument: inputs[key] for argument, key in record["feeds"].items()}
    arrays |= {argument: np.load(path) for argument, path in record["initial"].items()}
    try:
        sess = ort.session(record["onnx"])
        results = ort.run(sess, arrays)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many kinds
        return first_line(error), None, None
    metadata = sess.get_modelmeta().custom_metadata_map
    states = record.get("updates", {}).items()
    pairs = output_pairs(record, expected) + [(metadata.get(f"djinn.state.{s}", s), key) for s, key in states]
    return None, *compare(results, expected, pairs)


def run_original(path, record, inputs, expected):
    """Run the original ONNX model, whose names are those of the written one: (refusal, difference)."""
    arrays = {argument: inputs[key] for argument, key in record["feeds"].items()}
    try:
        results = ort.run(ort.session(path), arrays)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many kinds
        return first_line(error), None
    return None, compare(results, expected, output_pairs(record, expected))[0]


def judge(record, original):
    """Status, message and largest error of one case."""
    if "onnx" not in record:
        return "not-written", f"{record['stage']}: {record['message']}".replace("\n", " ")[:300], None
    inputs, expected = read_npz(record["dir"], "inputs"), read_npz(record["dir"], "expected")
    invalid = validate(record["onnx"])
    if invalid and not (original and validate(original)):
        return "invalid", invalid, None
    refused, differs, error = run_written(record, inputs, expected)
    if not refused and not differs:
        return "ok", "", error
    # What another format's export does in ONNX Runtime excuses nothing.
    comparable = original and record["format"] == "onnx"
    refused_too, differs_too = run_original(original, record, inputs, expected) if comparable else (None, None)
    if refused:
        return ("ort-unsupported", refused_too, error) if refused_too else ("no-kernel", refused, error)
    if differs_too:
        return "ort-differs", f"original: {differs_too}; written: {differs}", error
    return "wrong", differs, error


def ort_count(original, level, folder):
    """Nodes that ONNX Runtime's optimiser leaves at a level; None if it cannot say."""
    path = Path(folder) / "optimised.onnx"
    try:
        ort.session(original, level, save=path)
        return ort.node_count(path)
    except Exception:  # noqa: BLE001 - then there is no figure to compare with
        return None


def check(job):
    """Judge one case and count nodes if asked."""
    record, counts = job
    original = Path(record["dir"]) / "model.onnx"
    original = original if original.is_file() else None
    status, message, error = judge(record, original)
    out = {"case": record["case"], "format": record["format"], "status": status, "message": message, "error": error}
    out["ours"] = record.get("onnx_nodes")
    if counts and original:
        out["original"] = ort.node_count(original)
        with tempfile.TemporaryDirectory() as folder:
            out["ort_basic"] = ort_count(original, LEVELS.ORT_ENABLE_BASIC, folder)
            out["ort_all"] = ort_count(original, LEVELS.ORT_ENABLE_ALL, folder)
    return out


def crashed(job, code):
    """The result of a case that brought the process down."""
    record, _ = job
    message = f"the process ended with {code}"
    return {"case": record["case"], "format": record["format"], "status": "crash", "message": message, "error": None}


def table(results):
    """The table of results."""

    def cell(value):
        return "-" if value is None else value

    header = ["case", "format", "status", ">original", ">ORT basic", ">ORT all", ">ours", ">error", "message"]
    rows = []
    for r in results:
        counts = [cell(r.get(k)) for k in ("original", "ort_basic", "ort_all", "ours")]
        error = "-" if r["error"] is None else f"{r['error']:.1e}"
        rows.append([r["case"], r["format"], r["status"], *counts, error, r["message"]])
    return tables.render(header, rows)


def summary(label, results):
    """One line: how many cases went how, and nodes in all."""
    found = Counter(r["status"] for r in results)
    line = f"{label}: " + ", ".join(f"{found[s]} {s}" for s in STATUSES) + f" ({len(results)} in all)"
    counted = [r for r in results if all(r.get(k) for k in ("original", "ort_all", "ours"))]
    if counted:
        sums = [sum(r[k] for r in counted) for k in ("original", "ort_all", "ours")]
        line += f"; nodes: {sums[0]} original, {sums[1]} left by ONNX Runtime, {sums[2]} ours"
    return line


def main():
    """Check every case of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases")
    parser.add_argument("out", type=Path)
    parser.add_argument("--label", default="written")
    parser.add_argument("--counts", action="store_true", help="compare node counts")
    parser.add_argument("--enforce", type=Path, help="only the cases named here make the run fail")
    parser.add_argument("--min-ok", type=int, default=0)
    parser.add_argument("--brief", action="store_true", help="print only failures")
    args = parser.parse_args()
    onnxruntime.set_default_logger_severity(ort.QUIET)
    records = [json.loads(line) for line in Path(args.cases).read_text().splitlines()]
    results = run_batches(check, [(r, args.counts) for r in records], on_crash=crashed)
    line = summary(args.label, results)
    stem = args.label.replace(",", "").replace(" ", "-")
    tables.write(args.out / f"{stem}.md", f"# {args.label}\n\n{line}\n\n{table(results)}")
    tables.write(args.out / f"{stem}.json", "".join(json.dumps(r) + "\n" for r in results))
    shown = [r for r in results if r["status"] in FAILURES] if args.brief else results
    if shown:
        print(table(shown), end="")
    print(line)
    enforced = set(args.enforce.read_text().split()) if args.enforce else None
    failed = [r for r in results if r["status"] in FAILURES and (enforced is None or r["case"] in enforced)]
    ok = sum(r["status"] == "ok" for r in results)
    if ok < args.min_ok:
        print(f"{args.label}: {ok} ok, at least {args.min_ok} are required")
    return 1 if failed or ok < args.min_ok else 0


if __name__ == "__main__":
    sys.exit(main())
