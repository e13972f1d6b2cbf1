//! Kernels for GPUs: lowered to MLIR, compiled to PTX once for each distinct text, found again by a hash of that text.

use crate::compiled::Lowering;
use crate::jit::{FusedParam, step_params};
use djinn_cuda::{Device, Function, Module};
use djinn_diag::{Diagnostic, Result, input};
use djinn_ir::{Dim, Graph, Op, OpId, OpKind, ValueId};
use djinn_kernel::{Group, Param};
use djinn_mlir::Compiler;
use std::collections::{BTreeMap, BTreeSet};

/// Functions that are compiled as one module.
const MODULE_FUNCTIONS: usize = 32;
/// What a kernel is called until its text is hashed.
const NAME: &str = "djinn_kernel";
/// What the name of every compiled kernel begins with; digits of the hash follow.
const PREFIX: &str = "djinn_";

/// A kernel before it is compiled.
pub(crate) struct GpuLowered {
    name: String,
    params: Vec<Param>,
    launches: Vec<djinn_kernel::Launch>,
}

/// Compiled launches of a step.
pub(crate) struct GpuFused {
    pub(crate) launches: Vec<GpuLaunch>,
    /// The arguments of every launch.
    pub(crate) params: Vec<FusedParam>,
    /// The operations that they stand for.
    pub(crate) ops: Vec<OpId>,
}

/// A launch of a function.
pub(crate) struct GpuLaunch {
    pub(crate) function: Function,
    pub(crate) grid: [Dim; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: Dim,
}

/// Texts of kernels by name, and why some operations have none.
#[derive(Default)]
pub(crate) struct GpuTexts {
    /// MLIR of the functions of a kernel.
    pub(crate) texts: BTreeMap<String, String>,
    /// Number of parameters of each function of a kernel.
    params: BTreeMap<String, usize>,
    /// How often each operation was refused, with the reason.
    pub(crate) refused: BTreeMap<String, usize>,
}

impl GpuTexts {
    fn lower(&mut self, group: &Group, aliases: &[(usize, usize)]) -> Option<GpuLowered> {
        match djinn_kernel::lower_gpu_aliased(group, NAME, aliases) {
            Ok(kernel) => Some(self.named(kernel)),
            Err(problem) => {
                if let ([op], []) = (group.ops, aliases) {
                    let kind = group.graph.get_op(*op).map_or("", |op| op.kind.name());
                    *self.refused.entry(format!("'{kind}': {}", problem.message)).or_default() += 1;
                }
                None
            }
        }
    }

    /// Have the kernels of a module the parameters that they are launched with? CUDA reads as many as the module says.
    ///
    /// # Errors
    /// `kernels.format` if not.
    pub(crate) fn check(&self, ptx: &str) -> Result<()> {
        for kernel in declared(ptx) {
            let wanted = self.params.get(kernel_of(kernel.name));
            if let Some(wanted) = wanted.filter(|n| kernel.params != Some(**n)) {
                let message =
                    format!("kernel '{}' does not have the {wanted} parameters of its source", kernel.name);
                return Err(input("kernels.format", message).help("write the bundle again"));
            }
        }
        Ok(())
    }

    /// Gives a kernel a name that says what it does.
    fn named(&mut self, kernel: djinn_kernel::GpuKernel) -> GpuLowered {
        let digest = blake3::hash(kernel.mlir.as_bytes()).to_hex();
        let name = format!("{PREFIX}{}", &digest[..32]);
        let rename =
            |text: &str, marker: &str| text.replace(&format!("{marker}{NAME}"), &format!("{marker}{name}"));
        let mut launches = kernel.launches;
        for launch in &mut launches {
            launch.function = rename(&launch.function, "");
        }
        self.params.insert(name.clone(), kernel.params.len());
        self.texts.entry(name.clone()).or_insert_with(|| rename(&kernel.mlir, "@"));
        GpuLowered { name, params: kernel.params, launches }
    }
}

/// Is this a product that cuBLASLt has?
pub(crate) fn is_product(graph: &Graph, op: &Op) -> bool {
    let first = op.operands.first().and_then(|v| graph.get_value(*v));
    op.kind == OpKind::MatMul && first.is_some_and(|v| super::gemm::element(v.ty.dtype).is_some())
}

/// PTX for everything in `texts` that is not in `known`, in modules.
///
/// Gives the modules and what was refused.
pub(crate) fn compile(
    texts: &BTreeMap<String, String>,
    known: &BTreeSet<&str>,
    chip: &str,
) -> (Vec<String>, Vec<Diagnostic>) {
    let missing: Vec<&str> = texts
        .iter()
        .filter(|(name, _)| !known.contains(name.as_str()))
        .map(|(_, text)| text.as_str())
        .collect();
    let (mut modules, mut problems) = (Vec::new(), Vec::new());
    if missing.is_empty() {
        return (modules, problems);
    }
    match Compiler::load() {
        Ok(compiler) => missing
            .chunks(MODULE_FUNCTIONS)
            .for_each(|part| compile_part(&compiler, part, chip, &mut modules, &mut problems)),
        Err(problem) => problems.push(*problem),
    }
    (modules, problems)
}

/// Compiles some kernels as one module; if that is refused, each by itself.
fn compile_part(
    compiler: &Compiler,
    part: &[&str],
    chip: &str,
    modules: &mut Vec<String>,
    problems: &mut Vec<Diagnostic>,
) {
    let module = format!("gpu.module @kernels {{\n{}}}\n", part.concat());
    match (compiler.ptx(&module, chip), part) {
        (Ok(ptx), _) => modules.push(ptx),
        (Err(problem), [_]) => problems.push(*problem),
        (Err(_), _) => part.chunks(1).for_each(|one| compile_part(compiler, one, chip, modules, problems)),
    }
}

/// A kernel of a PTX module as its text declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Declared<'p> {
    pub(crate) name: &'p str,
    /// Number of its parameters; `None` if one of them is not a pointer or an integer of 64 bits.
    pub(crate) params: Option<usize>,
}

/// The kernels of a PTX module: `.entry NAME(.param .u64 NAME_param_0, …)`.
pub(crate) fn declared(ptx: &str) -> impl Iterator<Item = Declared<'_>> {
    ptx.split(".entry ").skip(1).filter_map(|rest| {
        let (name, rest) = rest.split_once('(')?;
        let (params, _) = rest.split_once(')')?;
        let params: Vec<&str> = params.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
        let is_word = |param: &&str| {
            let mut words = param.split_whitespace();
            let word = (words.next(), words.next());
            matches!(word, (Some(".param"), Some(".u64" | ".b64" | ".s64"))) && !param.contains('[')
        };
        let count = params.iter().all(is_word).then_some(params.len());
        Some(Declared { name: name.trim(), params: count })
    })
}

/// The names of the kernels that a PTX module has.
pub(crate) fn entries(ptx: &str) -> impl Iterator<Item = &str> {
    declared(ptx).map(|kernel| kernel.name)
}

/// The kernel that a function belongs to: kernels with several functions number them.
pub(crate) fn kernel_of(function: &str) -> &str {
    function.get(..PREFIX.len() + 32).unwrap_or(function)
}

/// The kernels of one GPU.
pub(crate) struct GpuCode<'a> {
    pub(crate) texts: &'a mut GpuTexts,
    /// Are products left to cuBLASLt?
    pub(crate) has_blas: bool,
    /// Functions by name.
    pub(crate) functions: &'a BTreeMap<String, Function>,
    /// The graph that the operations are in.
    pub(crate) graph: &'a Graph,
}

impl Lowering for GpuCode<'_> {
    type Lowered = GpuLowered;
    type Fused = GpuFused;
    type Library = ();

    fn lower(&mut self, group: &Group, aliases: &[(usize, usize)]) -> Option<GpuLowered> {
        self.texts.lower(group, aliases)
    }

    fn has_library(&self, op: &Op) -> bool {
        self.has_blas && is_product(self.graph, op)
    }

    fn code(
        &self,
        lowered: &GpuLowered,
        ops: Vec<OpId>,
        local: &dyn Fn(ValueId) -> Option<usize>,
    ) -> Option<GpuFused> {
        debug_assert!(lowered.launches.iter().all(|l| kernel_of(&l.function) == lowered.name));
        let launch = |l: &djinn_kernel::Launch| {
            let function = self.functions.get(&l.function)?.clone();
            let (grid, block, shared_bytes) = (l.grid.clone(), l.block, l.shared_bytes.clone());
            Some(GpuLaunch { function, grid, block, shared_bytes })
        };
        let launches = lowered.launches.iter().map(launch).collect::<Option<_>>()?;
        Some(GpuFused { launches, params: step_params(&lowered.params, local)?, ops })
    }
}

/// Loads PTX modules on a GPU; gives their functions by name.
pub(crate) fn load(device: &Device, modules: &[String]) -> Result<BTreeMap<String, Function>> {
    let mut functions = BTreeMap::new();
    for ptx in modules {
        let module = Module::from_ptx(device, ptx)?;
        for name in entries(ptx) {
            if let Some(function) = module.function(name) {
                functions.insert(name.to_owned(), function);
            }
        }
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_declare_their_parameters() {
        let ptx = ".version 7.8\n.visible .entry a_0(\n\t.param .u64 .ptr .align 1 a_0_param_0,\n\t.param .u64 a_0_param_1\n)\n{ ret; }\n\
                   .visible .entry b(\n)\n{ ret; }\n.entry c(.param .b8 c_param_0[4096])\n{ ret; }\n.entry d(.param .u32 x)";
        let found: Vec<_> = declared(ptx).map(|k| (k.name, k.params)).collect();
        assert_eq!(found, [("a_0", Some(2)), ("b", Some(0)), ("c", None), ("d", None)]);
        let mut texts = GpuTexts::default();
        texts.params.insert("a_0".into(), 2);
        texts.params.insert("c".into(), 1);
        assert!(texts.check(ptx).is_err(), "c has other parameters");
        texts.params.remove("c");
        assert!(texts.check(ptx).is_ok());
        texts.params.insert("a_0".into(), 3);
        assert_eq!(texts.check(ptx).expect_err("one is missing").code, "kernels.format");
    }
}
