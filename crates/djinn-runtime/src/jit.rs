//! Compiled code for kernels: lowered to MLIR (`djinn_kernel`), compiled once for each distinct text (`djinn_mlir`).

use crate::compiled::{LaidOut, Lowering};
use djinn_diag::Diagnostic;
use djinn_ir::{Dim, Op, OpId, ValueId};
use djinn_kernel::{Group, Param};
use djinn_mlir::{Compiler, Jit, JitFunction};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

/// Functions that are compiled as one module.
const MODULE_FUNCTIONS: usize = 64;
/// What a function is called until the texts have been counted.
const NAME: &str = "djinn_kernel";

/// How the kernels of a runtime are run.
#[derive(Debug, Clone, Default)]
pub struct KernelReport {
    /// The GPUs that run them, such as `cuda:0 NVIDIA H200`; none on the host.
    pub devices: Vec<String>,
    /// Steps that are compiled code, by all kernels of all entries.
    pub fused: usize,
    /// Steps that are library calls.
    pub library: usize,
    /// Steps that are evaluated.
    pub evaluated: usize,
    /// Functions that were compiled; steps that do the same share one.
    pub functions: usize,
    /// Seconds that compiling took.
    pub compile_seconds: f64,
    /// Kernels that engines run.
    pub engines: usize,
    /// On a GPU: operations that no kernel does, with the reason, and how often they occur.
    pub refused: BTreeMap<String, usize>,
    /// Why there is no compiled code, or not for everything.
    pub problems: Vec<Box<Diagnostic>>,
}

/// The number of a text and its parameters.
pub(crate) struct Lowered {
    text: usize,
    params: Vec<Param>,
}

/// Code for the host: distinct texts of functions, and these compiled.
#[derive(Default)]
pub(crate) struct HostCode {
    numbers: BTreeMap<String, usize>,
    functions: Vec<Option<JitFunction>>,
}

impl HostCode {
    /// Compiles everything that was lowered.
    pub(crate) fn compile(&mut self) -> KernelReport {
        let start = Instant::now();
        let mut report = KernelReport::default();
        self.functions = vec![None; self.numbers.len()];
        let texts = std::mem::take(&mut self.numbers);
        let mut named: Vec<(usize, String)> =
            texts.into_iter().map(|(text, n)| (n, rename(&text, n))).collect();
        named.sort();
        if !named.is_empty() {
            match Compiler::load() {
                Ok(compiler) => {
                    for part in named.chunks(MODULE_FUNCTIONS) {
                        compile_part(&compiler, part, &mut self.functions, &mut report);
                    }
                }
                Err(missing) => report.problems.push(missing),
            }
        }
        report.functions = self.functions.iter().flatten().count();
        report.compile_seconds = start.elapsed().as_secs_f64();
        report
    }
}

impl Lowering for HostCode {
    type Lowered = Lowered;
    type Fused = Fused;
    type Library = LaidOut;

    fn lower(&mut self, group: &Group, aliases: &[(usize, usize)]) -> Option<Lowered> {
        let kernel = djinn_kernel::lower_host(group, NAME, aliases).ok()?;
        let next = self.numbers.len();
        let text = *self.numbers.entry(kernel.mlir).or_insert(next);
        Some(Lowered { text, params: kernel.params })
    }

    fn has_library(&self, op: &Op) -> bool {
        djinn_blas::supports(op.kind)
    }

    fn code(
        &self,
        lowered: &Lowered,
        ops: Vec<OpId>,
        local: &dyn Fn(ValueId) -> Option<usize>,
    ) -> Option<Fused> {
        let function = self.functions.get(lowered.text)?.clone()?;
        let params = step_params(&lowered.params, local)?;
        Some(Fused { function, params, ops, checked: Mutex::new(None) })
    }
}

/// The parameters of a function, with numbers of values.
pub(crate) fn step_params(
    params: &[Param],
    local: &dyn Fn(ValueId) -> Option<usize>,
) -> Option<Vec<FusedParam>> {
    let param = |param: &Param| {
        Some(match param {
            Param::Read(v) => FusedParam::Read(local(*v)?),
            Param::Write(v) => FusedParam::Write(local(*v)?),
            Param::Scratch { elements, dtype } => FusedParam::Scratch(elements.clone(), dtype.size()),
            Param::Size(dim) => FusedParam::Size(dim.clone()),
        })
    };
    params.iter().map(param).collect()
}

fn name(number: usize) -> String {
    format!("{NAME}_{number}")
}

fn rename(text: &str, number: usize) -> String {
    text.replace(&format!("@{NAME}"), &format!("@{}", name(number)))
}

/// Compiles some functions as one module; if that is refused, each by itself.
fn compile_part(
    compiler: &Compiler,
    part: &[(usize, String)],
    functions: &mut [Option<JitFunction>],
    report: &mut KernelReport,
) {
    let bodies: Vec<&str> = part.iter().map(|(_, text)| text.as_str()).collect();
    let module = format!("module {{\n{}\n}}\n", bodies.join("\n"));
    match (compiler.jit(&module), part) {
        (Ok(jit), _) => take(&jit, part, functions),
        (Err(problem), [_]) => report.problems.push(problem),
        (Err(_), _) => part.chunks(1).for_each(|one| compile_part(compiler, one, functions, report)),
    }
}

fn take(jit: &Jit, part: &[(usize, String)], functions: &mut [Option<JitFunction>]) {
    for (number, _) in part {
        functions[*number] = jit.function(&name(*number));
    }
}

/// Compiled code of a step.
pub(crate) struct Fused {
    pub(crate) function: JitFunction,
    pub(crate) params: Vec<FusedParam>,
    /// The operations that it stands for.
    pub(crate) ops: Vec<OpId>,
    /// The sizes that its operations were last found to go together for.
    pub(crate) checked: Mutex<Option<Vec<i64>>>,
}

/// An argument of compiled code.
pub(crate) enum FusedParam {
    /// The value of this local.
    Read(usize),
    /// The place of this local.
    Write(usize),
    /// Scratch memory: number of elements and bytes of one.
    Scratch(Dim, usize),
    /// A size.
    Size(Dim),
}
