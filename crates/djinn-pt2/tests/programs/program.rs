//! Tiny programs in the JSON of torch.export, and their evaluation.

use djinn_interp::{Outputs, run};
use djinn_ir::{DType, TensorData};
use djinn_srg::lower;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A program under construction.
pub(crate) struct Program {
    values: serde_json::Map<String, Value>,
    inputs: Vec<Value>,
    specs: Vec<Value>,
    nodes: Vec<Value>,
}

/// Type and layout of a contiguous tensor.
pub(crate) fn meta(dtype: i64, sizes: &[i64]) -> Value {
    let mut strides = vec![1i64; sizes.len()];
    for i in (0..sizes.len().saturating_sub(1)).rev() {
        strides[i] = strides[i + 1] * sizes[i + 1].max(1);
    }
    let ints = |v: &[i64]| v.iter().map(|i| json!({"as_int": i})).collect::<Vec<_>>();
    json!({
        "dtype": dtype, "sizes": ints(sizes), "strides": ints(&strides), "requires_grad": false,
        "device": {"type": "cpu", "index": null}, "storage_offset": {"as_int": 0}, "layout": 7,
    })
}

impl Program {
    pub(crate) fn new() -> Self {
        Program { values: serde_json::Map::new(), inputs: Vec::new(), specs: Vec::new(), nodes: Vec::new() }
    }

    fn graph_input(mut self, name: &str, dtype: i64, sizes: &[i64], spec: Value) -> Self {
        self.values.insert(name.to_string(), meta(dtype, sizes));
        self.inputs.push(json!({"as_tensor": {"name": name}}));
        self.specs.push(spec);
        self
    }

    /// Adds a user input (dtype 7 is f32, 5 is i64, 12 is bool).
    pub(crate) fn input(self, name: &str, dtype: i64, sizes: &[i64]) -> Self {
        let spec = json!({"user_input": {"arg": {"as_tensor": {"name": name}}}});
        self.graph_input(name, dtype, sizes, spec)
    }

    /// Adds a buffer.
    pub(crate) fn buffer(self, name: &str, fqn: &str, dtype: i64, sizes: &[i64]) -> Self {
        let spec = json!({"buffer": {"arg": {"name": name}, "buffer_name": fqn, "persistent": true}});
        self.graph_input(name, dtype, sizes, spec)
    }

    /// Adds a call of an operator of torch's library: `args` maps argument names to arguments, `name` is the result.
    pub(crate) fn call(mut self, name: &str, op: &str, args: Value) -> Self {
        let args: Vec<Value> = match args {
            Value::Object(o) => o.into_iter().map(|(n, a)| json!({"name": n, "arg": a, "kind": 1})).collect(),
            _ => Vec::new(),
        };
        let outputs: Vec<Value> = name.split(' ').map(|n| json!({"as_tensor": {"name": n}})).collect();
        self.nodes.push(json!({
            "target": format!("torch.ops.aten.{op}"), "inputs": args, "outputs": outputs, "metadata": {},
        }));
        self
    }

    /// The program with these user outputs.
    pub(crate) fn json(self, outputs: &[&str]) -> Value {
        let arg = |n: &&str| json!({"as_tensor": {"name": n}});
        let specs: Vec<Value> = outputs.iter().map(|n| json!({"user_output": {"arg": arg(n)}})).collect();
        json!({
            "graph_module": {
                "graph": {
                    "inputs": self.inputs, "outputs": outputs.iter().map(arg).collect::<Vec<_>>(),
                    "nodes": self.nodes, "tensor_values": self.values, "sym_int_values": {},
                },
                "signature": {"input_specs": self.specs, "output_specs": specs},
            },
            "range_constraints": {}, "schema_version": {"major": 8, "minor": 20}, "verifiers": ["TRAINING"],
            "torch_version": "2.15.0", "guards_code": [],
        })
    }
}

/// A tensor argument.
pub(crate) fn t(name: &str) -> Value {
    json!({"as_tensor": {"name": name}})
}

/// An integer argument.
pub(crate) fn i(v: i64) -> Value {
    json!({"as_int": v})
}

/// An argument of integers.
pub(crate) fn ints(v: &[i64]) -> Value {
    json!({"as_ints": v})
}

/// A float argument.
pub(crate) fn f(v: f64) -> Value {
    json!({"as_float": v})
}

/// An f32 tensor 0, 1, 2, ….
pub(crate) fn ramp(shape: &[usize]) -> TensorData {
    let n: usize = shape.iter().product();
    TensorData::from_f32(shape, &(0..n).map(|v| v as f32).collect::<Vec<_>>()).expect("sizes agree")
}

/// An i64 tensor.
pub(crate) fn longs(shape: &[usize], values: &[i64]) -> TensorData {
    TensorData::from_i64(shape, values).expect("sizes agree")
}

/// Imports and evaluates.
pub(crate) fn evaluate(program: &Value, inputs: &[(&str, TensorData)]) -> Result<Outputs, String> {
    let imported =
        djinn_pt2::import_program_json(program.to_string().as_bytes()).map_err(|e| e.to_string())?;
    assert!(imported.report.opaque.is_empty(), "{:?}", imported.report);
    let module = lower(&imported.srg).map_err(|e| e.to_string())?;
    let inputs: BTreeMap<String, TensorData> =
        inputs.iter().map(|(n, v)| (n.to_string(), v.clone())).collect();
    run(&module, "forward", &inputs).map_err(|e| e.to_string())
}

/// Elements as floats.
pub(crate) fn floats(t: &TensorData) -> Vec<f64> {
    (0..t.numel()).filter_map(|i| t.get_f64(i)).collect()
}

/// Element type, shape and elements of the first output.
pub(crate) fn first(program: &Value, inputs: &[(&str, TensorData)]) -> (DType, Vec<usize>, Vec<f64>) {
    let out = evaluate(program, inputs).expect("evaluates");
    let value = &out.outputs[0].1;
    (value.dtype(), value.shape().to_vec(), floats(value))
}
