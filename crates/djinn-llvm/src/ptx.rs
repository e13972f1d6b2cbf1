//! PTX text for NVIDIA GPUs.

use crate::builtins;
use crate::session::{Compiler, Kind, Refusal};
use melior::ir::attribute::ArrayAttribute;
use melior::ir::operation::OperationLike;
use melior::ir::{AttributeLike, BlockLike, Module};
use mlir_sys::{mlirAttributeIsAGPUObjectAttr, mlirGPUObjectAttrGetObject};

/// GPUs that LLVM 22 knows and CUDA 12 supports; an unknown name would make LLVM print and guess.
const CHIPS: [&str; 30] = [
    "sm_50", "sm_52", "sm_53", "sm_60", "sm_61", "sm_62", "sm_70", "sm_72", "sm_75", "sm_80", "sm_86",
    "sm_87", "sm_88", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_100a", "sm_100f", "sm_101", "sm_101a",
    "sm_101f", "sm_103", "sm_103a", "sm_103f", "sm_110", "sm_120", "sm_120a", "sm_121", "sm_121a",
];

/// Compiles the `gpu.module` of a module to PTX text.
pub(crate) fn compile(compiler: &Compiler, text: &str, chip: &str) -> Result<String, Refusal> {
    if !CHIPS.contains(&chip) {
        let message = format!("no GPU is called '{chip}'; known are {}", CHIPS.join(", "));
        return Err(Refusal::new(Kind::Chip, message));
    }
    compiler.with(None, text, |session| {
        let mut module = session.parse(text)?;
        session.lower(&mut module, &lowering(chip))?;
        builtins::define(session, &module)?;
        session.lower(&mut module, EMISSION)?;
        let texts = objects(&module)?;
        if texts.is_empty() {
            return Err(Refusal::new(Kind::Module, "the module holds no gpu.module"));
        }
        refuse_missing(&texts.concat())?;
        Ok(texts.concat())
    })
}

/// From structured control flow, vectors and buffers to NVVM. Arithmetic on bfloat16 is done in f32.
fn lowering(chip: &str) -> String {
    format!(
        "builtin.module(nvvm-attach-target{{chip={chip} O=3}},\
         gpu.module(gpu.func(arith-emulate-unsupported-floats{{source-types=bf16 target-type=f32}},\
         convert-vector-to-scf)),canonicalize,cse,lower-affine,\
         gpu.module(expand-strided-metadata,lower-affine,convert-scf-to-cf,\
         convert-gpu-to-nvvm{{use-bare-ptr-memref-call-conv=true}},canonicalize,cse,reconcile-unrealized-casts))"
    )
}

/// From NVVM to text.
const EMISSION: &str = "builtin.module(gpu-module-to-binary{format=isa})";

/// The text of every compiled GPU module.
#[allow(unsafe_code, reason = "the compiled text is read through the C interface")]
fn objects(module: &Module<'_>) -> Result<Vec<String>, Refusal> {
    let mut texts = Vec::new();
    let body = module.body();
    let mut next = body.first_operation();
    while let Some(operation) = next {
        let objects = operation.attribute("objects").ok().and_then(|o| ArrayAttribute::try_from(o).ok());
        for object in objects.iter().flat_map(|array| (0..array.len()).filter_map(|i| array.element(i).ok()))
        {
            // SAFETY: the attribute is alive, and its kind is asked before it is read.
            let text = unsafe {
                if !mlirAttributeIsAGPUObjectAttr(object.to_raw()) {
                    continue;
                }
                let raw = mlirGPUObjectAttrGetObject(object.to_raw());
                std::slice::from_raw_parts(raw.data.cast::<u8>(), raw.length)
            };
            let text = text.strip_suffix(&[0]).unwrap_or(text);
            let text = std::str::from_utf8(text)
                .map_err(|_| Refusal::new(Kind::Internal, "the compiled GPU module is no text"))?;
            texts.push(text.to_owned());
        }
        next = operation.next_in_block();
    }
    Ok(texts)
}

/// Refuses PTX that needs functions from elsewhere, such as those of CUDA's `libdevice`.
fn refuse_missing(text: &str) -> Result<(), Refusal> {
    let Some((_, rest)) = text.split_once(".extern .func") else { return Ok(()) };
    // What follows is `(.param .b32 func_retval0) NAME` or `NAME`, then a list of parameters.
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('(').and_then(|r| r.split_once(')')).map_or(rest, |(_, name)| name);
    let name = rest.split(['(', ';']).next().unwrap_or(rest).trim();
    Err(Refusal::new(Kind::Symbol, format!("the kernel calls '{name}', which the GPU does not have")))
}
