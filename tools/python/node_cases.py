"""Write ONNX's node test cases as case folders {model.onnx, inputs.npz, expected.npz}.

Usage: node_cases.py OUTDIR

Only cases whose graph inputs and outputs are tensors of f32, f64, f16, i32, i64 or bool, and that have no subgraph. The
onnx package makes the cases with fixed seeds, so the result depends on its version alone: a stamp with the versions
makes a second run free.
"""

import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from arrays import write_npz
from onnx import TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

STAMP = f"onnx {onnx.__version__}, numpy {np.__version__}, layout 1\n"
TYPES = {
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}
SUBGRAPHS = {onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS}
# Keys that numpy and zip tools take as they are.
PLAIN = re.compile(r"[A-Za-z0-9_.]+")


def suitable(graph):
    """Is the case within what this suite covers?"""
    for value in [*graph.input, *graph.output]:
        if value.type.WhichOneof("value") != "tensor_type" or value.type.tensor_type.elem_type not in TYPES:
            return False
    return not any(a.type in SUBGRAPHS for node in graph.node for a in node.attribute)


def array(value):
    """A recorded input or output as an array."""
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)


def keyed(values, recorded):
    """Arrays under keys that are plain, and the true names where they are not."""
    arrays, names = {}, {}
    for i, (value, data) in enumerate(zip(values, recorded)):
        key = value.name
        if not PLAIN.fullmatch(key) or key in arrays:
            key = f"array_{i}"
            names[key] = value.name
        arrays[key] = array(data)
    return arrays, names


def write_case(case, folder):
    """Write one case."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(case.model.SerializeToString(deterministic=True))
    inputs, outputs = case.data_sets[0]
    names = {}
    for which, values, recorded in [
        ("inputs", case.model.graph.input, inputs),
        ("expected", case.model.graph.output, outputs),
    ]:
        arrays, renamed = keyed(values, recorded)
        write_npz(folder / f"{which}.npz", arrays)
        if renamed:
            names[which] = renamed
    if names:
        (folder / "names.json").write_text(json.dumps(names, indent=1, sort_keys=True))


def main(out):
    """Write all suitable cases, unless this version's are there."""
    stamp = out / "stamp.txt"
    if stamp.is_file() and stamp.read_text() == STAMP:
        return
    shutil.rmtree(out, ignore_errors=True)
    warnings.filterwarnings("ignore")
    cases = collect_testcases(None)
    chosen = [c for c in cases if suitable(c.model.graph)]
    for case in chosen:
        write_case(case, out / case.name)
    stamp.write_text(STAMP)
    print(f"node cases: {len(chosen)} of {len(cases)} written (others: subgraphs, sequences, other element types)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
