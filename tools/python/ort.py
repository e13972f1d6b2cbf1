"""Sessions of ONNX Runtime as the tests and benchmarks use them: CPU, one thread, sequential."""

import numpy as np
import onnx
import onnxruntime

# 4 is "fatal": refusals are raised as exceptions anyway.
QUIET = 4


def session(path, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, save=None):
    """A session for a model file; writes ONNX Runtime's own optimised model to `save` if given."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level
    options.log_severity_level = QUIET
    if save is not None:
        options.optimized_model_filepath = str(save)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def feed(sess, arrays):
    """The arrays that the session takes, by name."""
    missing = [i.name for i in sess.get_inputs() if i.name not in arrays]
    if missing:
        raise ValueError(f"no recorded array for the inputs {', '.join(missing)}")
    return {i.name: arrays[i.name] for i in sess.get_inputs()}


def run(sess, arrays):
    """Results by name."""
    names = [o.name for o in sess.get_outputs()]
    return dict(zip(names, (np.asarray(v) for v in sess.run(None, feed(sess, arrays)))))


def _count(nodes):
    total = 0
    for node in nodes:
        total += 1
        for attribute in node.attribute:
            graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
            total += sum(_count(g.node) for g in graphs)
    return total


def node_count(path):
    """Nodes of a model file, those of subgraphs and functions included."""
    model = onnx.load(str(path), load_external_data=False)
    return _count(model.graph.node) + sum(_count(f.node) for f in model.functions)
