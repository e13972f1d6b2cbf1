//! Runs a graph as one generated kernel and beside the evaluator.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod ptx;

use djinn_interp::{Env, Tolerance, compare, run_traced};
use djinn_ir::{
    ArgumentKind, Attrs, DType, Dim, Function, Graph, Module, OpId, OpKind, ResultKind, TensorData,
    TensorType, ValueId, Visibility,
};
use djinn_kernel::{GpuKernel, Group, HostKernel, Param, lower_gpu_with, lower_host};
use djinn_mlir::Compiler;
use std::collections::BTreeMap;
use std::ffi::c_void;

/// What the evaluator gives.
type Outputs = [(String, TensorData)];

/// A graph under construction, with the values of its arguments.
pub(crate) struct Case {
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<TensorData>,
    symbolic: bool,
    /// Sizes that are never symbols.
    constant: Vec<i64>,
    seed: u64,
}

impl Case {
    pub(crate) fn new(symbolic: bool) -> Case {
        Case { graph: Graph::new(), inputs: Vec::new(), symbolic, constant: Vec::new(), seed: 1 }
    }

    /// A size: a symbol of its own if sizes are symbolic and it is not 1.
    pub(crate) fn dim(&self, size: i64) -> Dim {
        if self.symbolic && size > 1 && !self.constant.contains(&size) {
            Dim::symbol(&format!("s{size}"))
        } else {
            Dim::from(size)
        }
    }

    pub(crate) fn dims(&self, sizes: &[i64]) -> Vec<Dim> {
        sizes.iter().map(|s| self.dim(*s)).collect()
    }

    pub(crate) fn symbolic(&self) -> bool {
        self.symbolic
    }

    /// These sizes are not symbols from here on.
    pub(crate) fn keep_constant(&mut self, sizes: &[i64]) {
        self.constant.extend(sizes);
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
        let (mut buffers, mut sizes, _) = self.prepare(&kernel.params, &expected.outputs, writes, aliases);
        call(what, &kernel.mlir, compiler, &mut buffers, &mut sizes);
        self.judge(what, &kernel.params, &kernel.mlir, (&buffers, &expected.outputs, writes));
        self.check_gpu(what, writes, aliases, &expected.outputs, compiler);
    }

    /// The same for a GPU kernel whose blocks have one thread.
    fn check_gpu(
        &self,
        what: &str,
        writes: &[ValueId],
        aliases: &[(usize, usize)],
        expected: &Outputs,
        compiler: &Compiler,
    ) {
        for threads in [1, 64] {
            let kernel = match self.lower_gpu(writes, aliases, threads) {
                Err(e) if e.code == "kernel.alias" && !aliases.is_empty() => return,
                other => other.unwrap_or_else(|e| panic!("{what}: {e}")),
            };
            let what = format!("{what} (GPU, {threads} threads)");
            let text = format!("gpu.module @kernels {{\n{}}}\n", kernel.mlir);
            let ptx = compiler.ptx(&text, "sm_90").unwrap_or_else(|e| panic!("{what}: {e}\n{text}"));
            let (mut buffers, sizes, env) = self.prepare(&kernel.params, expected, writes, aliases);
            ptx::run(&what, &kernel, &ptx, &mut buffers, (&sizes, &env));
            self.judge(&what, &kernel.params, &text, (&buffers, expected, writes));
        }
    }

    /// Lowers all operations for a GPU.
    pub(crate) fn lower_gpu(
        &self,
        writes: &[ValueId],
        aliases: &[(usize, usize)],
        threads: u32,
    ) -> djinn_diag::Result<GpuKernel> {
        let ops: Vec<OpId> = self.graph.ops().map(|(id, _)| id).collect();
        let group = Group { graph: &self.graph, ops: &ops, reads: &self.graph.arguments, writes };
        lower_gpu_with(&group, "kernel", aliases, threads)
    }

    /// The memory of a kernel's arguments, its sizes, and the symbols.
    fn prepare(
        &self,
        params: &[Param],
        expected: &Outputs,
        writes: &[ValueId],
        aliases: &[(usize, usize)],
    ) -> (Vec<Vec<u8>>, Vec<i64>, Env) {
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
        for param in params {
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
        (buffers, sizes, env)
    }

    /// Compares what was written with what was expected.
    fn judge(
        &self,
        what: &str,
        params: &[Param],
        text: &str,
        (buffers, expected, writes): (&[Vec<u8>], &Outputs, &[ValueId]),
    ) {
        let result = |v: &ValueId| &expected[writes.iter().position(|w| w == v).expect("a result")].1;
        for (i, param) in params.iter().enumerate() {
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
                panic!("{what}: {e}\n{text}");
            }
        }
    }
}

/// Checks a graph with constant and with symbolic sizes.
pub(crate) fn both(what: &str, compiler: &Compiler, build: impl Fn(&mut Case) -> Vec<ValueId>) {
    for symbolic in [false, true] {
        let mut case = Case::new(symbolic);
        let writes = build(&mut case);
        case.check(&format!("{what} (symbolic: {symbolic})"), &writes, &[], compiler);
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

/// Compiles a function and calls it.
fn call(what: &str, text: &str, compiler: &Compiler, buffers: &mut [Vec<u8>], sizes: &mut [i64]) {
    let jit = compiler.jit(text).unwrap_or_else(|e| panic!("{what}: {e}\n{text}"));
    let mut pointers: Vec<*mut u8> = buffers.iter_mut().map(Vec::as_mut_ptr).collect();
    let mut args: Vec<*mut c_void> = pointers.iter_mut().map(|p| std::ptr::from_mut(p).cast()).collect();
    args.extend(sizes.iter_mut().map(|n| std::ptr::from_mut(n).cast::<c_void>()));
    #[allow(unsafe_code, reason = "compiled code is called")]
    // SAFETY: one pointer or size for each parameter, in order.
    unsafe {
        jit.function("kernel").expect("it was compiled").call(&mut args);
    }
}
