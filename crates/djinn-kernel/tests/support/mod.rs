//! Runs a graph as one generated kernel and beside the evaluator.
#![allow(dead_code, reason = "each test file uses a part of it")]

use djinn_interp::{Env, Tolerance, compare, run_traced};
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Module, OpId, OpKind, ResultKind, TensorData,
    TensorType, ValueId, Visibility,
};
use djinn_kernel::{GpuKernel, Group, HostKernel, Param, lower_gpu_with, lower_host};
use djinn_mlir::Compiler;
use std::collections::BTreeMap;
use std::ffi::c_void;

/// A graph under construction, with the values of its arguments.
pub(crate) struct Case {
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<TensorData>,
    symbolic: bool,
    seed: u64,
}

impl Case {
    pub(crate) fn new(symbolic: bool) -> Case {
        Case { graph: Graph::new(), inputs: Vec::new(), symbolic, seed: 1 }
    }

    /// A size: a symbol of its own if sizes are symbolic and it is not 1.
    pub(crate) fn dim(&self, size: i64) -> Dim {
        if self.symbolic && size != 1 { Dim::symbol(&format!("s{size}")) } else { Dim::from(size) }
    }

    pub(crate) fn dims(&self, sizes: &[i64]) -> Vec<Dim> {
        sizes.iter().map(|s| self.dim(*s)).collect()
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    /// An argument with random values between `low` and `high`.
    pub(crate) fn range(&mut self, dtype: DType, sizes: &[i64], low: f64, high: f64) -> ValueId {
        let shape: Vec<usize> = sizes.iter().map(|s| *s as usize).collect();
        let n: usize = shape.iter().product();
        let mut bytes = Vec::new();
        for _ in 0..n {
            let unit = self.random() as f64 / (1u64 << 31) as f64;
            let value = low + unit * (high - low);
            let value = if dtype.is_float() { value } else { value.floor() };
            bytes.extend(djinn_ir::data::encode_f64(dtype, value));
        }
        self.argument(TensorData::new(dtype, shape, bytes).expect("the bytes fit"), sizes)
    }

    pub(crate) fn argument(&mut self, data: TensorData, sizes: &[i64]) -> ValueId {
        let ty = TensorType::new(data.dtype(), self.dims(sizes));
        self.inputs.push(data);
        self.graph.add_argument(ty)
    }

    pub(crate) fn f32(&mut self, sizes: &[i64]) -> ValueId {
        self.range(DType::F32, sizes, -3.0, 3.0)
    }

    pub(crate) fn op(&mut self, kind: OpKind, operands: &[ValueId], attrs: Attrs) -> ValueId {
        self.graph.build1(kind, operands, attrs).unwrap_or_else(|e| panic!("{}: {e}", kind.name()))
    }

    /// Lowers all operations as one group that writes these values.
    pub(crate) fn lower(
        &self,
        writes: &[ValueId],
        aliases: &[(usize, usize)],
    ) -> djinn_diag::Result<HostKernel> {
        let ops: Vec<OpId> = self.graph.ops().map(|(id, _)| id).collect();
        let group = Group { graph: &self.graph, ops: &ops, reads: &self.graph.arguments, writes };
        lower_host(&group, "kernel", aliases)
    }

    fn module(&self, writes: &[ValueId]) -> Module {
        let mut graph = self.graph.clone();
        graph.results = writes.to_vec();
        let name = |i: usize| std::sync::Arc::from(format!("x{i}"));
        let function = Function {
            name: "main".into(),
            visibility: Visibility::Entry,
            arguments: (0..graph.arguments.len()).map(|i| (name(i), ArgumentKind::Input)).collect(),
            results: (0..writes.len()).map(|i| (name(i), ResultKind::Output)).collect(),
            graph,
        };
        Module { functions: vec![function], ..Module::default() }
    }

    /// Compares what the kernel writes with what the evaluator computes.
    pub(crate) fn check(
        &self,
        what: &str,
        writes: &[ValueId],
        aliases: &[(usize, usize)],
        compiler: &Compiler,
    ) {
        let module = self.module(writes);
        let inputs: BTreeMap<String, TensorData> =
            self.inputs.iter().enumerate().map(|(i, t)| (format!("x{i}"), t.clone())).collect();
        let expected = run_traced(&module, "main", &inputs, &mut |_, _, _| {})
            .unwrap_or_else(|e| panic!("{what}: the evaluator: {e}"));
        let kernel = self.lower(writes, aliases).unwrap_or_else(|e| panic!("{what}: {e}"));
        let run = Run { what, params: &kernel.params, text: &kernel.mlir, functions: vec!["kernel".into()] };
        self.compare(&run, &expected.outputs, writes, aliases, compiler);
        if aliases.is_empty() {
            let kernel = self.lower_gpu(writes, 1).unwrap_or_else(|e| panic!("{what}: {e}"));
            let functions = kernel.launches.iter().map(|l| l.function.clone()).collect();
            let text = one_thread(&kernel.mlir);
            let what = format!("{what} (GPU)");
            let run = Run { what: &what, params: &kernel.params, text: &text, functions };
            self.compare(&run, &expected.outputs, writes, aliases, compiler);
        }
    }

    /// Lowers all operations for a GPU.
    pub(crate) fn lower_gpu(&self, writes: &[ValueId], threads: u32) -> djinn_diag::Result<GpuKernel> {
        let ops: Vec<OpId> = self.graph.ops().map(|(id, _)| id).collect();
        let group = Group { graph: &self.graph, ops: &ops, reads: &self.graph.arguments, writes };
        lower_gpu_with(&group, "kernel", threads)
    }

    fn compare(
        &self,
        run: &Run,
        expected: &[(String, TensorData)],
        writes: &[ValueId],
        aliases: &[(usize, usize)],
        compiler: &Compiler,
    ) {
        let what = run.what;
        let mut env = Env::default();
        for (v, data) in self.graph.arguments.iter().zip(&self.inputs) {
            env.bind_shape("argument", self.graph.ty(*v), data.shape()).expect("shapes fit");
        }
        let shared: BTreeMap<ValueId, &TensorData> =
            aliases.iter().map(|(r, w)| (writes[*w], &self.inputs[*r])).collect();
        let outputs: Vec<&TensorData> = expected.iter().map(|o| &o.1).collect();
        let position = |v: &ValueId| self.graph.arguments.iter().position(|a| a == v).expect("an argument");
        let result = |v: &ValueId| outputs[writes.iter().position(|w| w == v).expect("a result")];
        let mut sizes = Vec::new();
        let mut buffers: Vec<Vec<u8>> = Vec::new();
        for param in run.params {
            match param {
                Param::Read(v) => buffers.push(self.inputs[position(v)].bytes().to_vec()),
                Param::Write(v) => {
                    let mut bytes = vec![0xa5u8; result(v).bytes().len()];
                    if let Some(old) = shared.get(v) {
                        bytes[..old.bytes().len()].copy_from_slice(old.bytes());
                    }
                    buffers.push(bytes);
                }
                Param::Scratch { elements, dtype } => {
                    let n = env.eval(elements).expect("sizes are known") as usize;
                    buffers.push(vec![0xa5u8; n * dtype.size()]);
                }
                Param::Size(d) => sizes.push(env.eval(d).expect("sizes are known")),
            }
        }
        let jit = compiler.jit(run.text).unwrap_or_else(|e| panic!("{what}: {e}\n{}", run.text));
        let mut pointers: Vec<*mut u8> = buffers.iter_mut().map(Vec::as_mut_ptr).collect();
        let mut args: Vec<*mut c_void> = pointers.iter_mut().map(|p| std::ptr::from_mut(p).cast()).collect();
        args.extend(sizes.iter_mut().map(|n| std::ptr::from_mut(n).cast::<c_void>()));
        for function in &run.functions {
            #[allow(unsafe_code, reason = "compiled code is called")]
            // SAFETY: one pointer or size for each parameter, in order.
            unsafe {
                jit.function(function).expect("it was compiled").call(&mut args.clone());
            }
        }
        for (i, param) in run.params.iter().enumerate() {
            let Param::Write(v) = param else { continue };
            let want = result(v);
            let got =
                TensorData::new(want.dtype(), want.shape().to_vec(), buffers[i].clone()).expect("it fits");
            let tolerance = if want.dtype() == DType::F32 {
                Tolerance::Approx { rtol: 2e-5, atol: 2e-6 }
            } else {
                Tolerance::Reassoc
            };
            if let Err(e) = compare(want, &got, tolerance) {
                panic!("{what}: {e}\n{}", run.text);
            }
        }
    }
}

/// The compiler, or `None` (and a line that says why).
pub(crate) fn compiler(test: &str) -> Option<Compiler> {
    match Compiler::load() {
        Ok(compiler) => Some(compiler),
        Err(e) => {
            eprintln!("{test}: skipped: {e}");
            None
        }
    }
}

/// Compiled functions that run one after the other on the same arguments.
struct Run<'a> {
    what: &'a str,
    params: &'a [Param],
    text: &'a str,
    functions: Vec<String>,
}

/// A GPU kernel for blocks of one thread as functions for this machine: one block runs the whole grid, nobody waits.
fn one_thread(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines().filter(|l| l.trim() != "gpu.barrier") {
        let line = line.replace(", #gpu.address_space<workgroup>", "").replace("gpu.return", "return");
        let Some(head) = line.strip_prefix("gpu.func") else {
            let line = line.replace("gpu.thread_id x", "arith.constant 0 : index");
            let line = line.replace("gpu.block_id x", "arith.constant 0 : index");
            out.push_str(&line.replace("gpu.grid_dim x", "arith.constant 1 : index"));
            out.push('\n');
            continue;
        };
        let head = head.replace(" kernel {", " {");
        let shared =
            head.split_once(" workgroup(%shared: ").and_then(|(h, t)| Some((h, t.split_once(") {")?.0)));
        match shared {
            Some((head, ty)) => {
                out.push_str(&format!("func.func{head} {{\n%shared = memref.alloca() : {ty}\n"))
            }
            None => out.push_str(&format!("func.func{head}\n")),
        }
    }
    out
}
