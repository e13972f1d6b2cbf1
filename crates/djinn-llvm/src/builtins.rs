//! Functions that a GPU computes by itself, in place of those of CUDA's `libdevice`.
//!
//! MLIR lowers the math dialect to calls such as `__nv_sqrtf`, whose bodies NVIDIA ships as bitcode with its toolkit.
//! Those with an instruction of their own in PTX are defined here by LLVM's intrinsics, which LLVM inlines.

use crate::session::{Kind, Refusal, Session};
use melior::ir::attribute::StringAttribute;
use melior::ir::operation::{OperationLike, OperationRef};
use melior::ir::{BlockLike, Module, RegionLike};
use mlir_sys::mlirOperationDestroy;

/// Functions of `libdevice` in f32 and f64 and the intrinsic that computes each exactly or, for `sqrt`, correctly rounded.
const INTRINSICS: [(&str, &str); 8] = [
    ("ceil", "ceil"),
    ("fabs", "fabs"),
    ("floor", "floor"),
    ("nearbyint", "nearbyint"),
    ("rint", "rint"),
    ("round", "round"),
    ("sqrt", "sqrt"),
    ("trunc", "trunc"),
];

/// Functions of two operands, and the operation of the LLVM dialect that computes each: LLVM expands the remainder.
const BINARY: [(&str, &str); 2] = [("copysign", "llvm.intr.copysign"), ("fmod", "llvm.frem")];

/// The names of `libdevice` for f32 and f64.
const TYPES: [(&str, &str); 2] = [("f", "f32"), ("", "f64")];

/// Gives the declarations of such functions in the GPU modules of a module their bodies.
pub(crate) fn define(session: &Session, module: &Module<'_>) -> Result<(), Refusal> {
    for gpu_module in operations(module.body()) {
        let Ok(region) = gpu_module.region(0) else { continue };
        let Some(block) = region.first_block() else { continue };
        for function in operations(block) {
            let Some(text) = name(&function).and_then(|name| definition(&name)) else { continue };
            let defined = session.parse(&text)?;
            let body = defined.body().first_operation();
            let body = body.ok_or_else(|| Refusal::new(Kind::Internal, "a built-in function has no text"))?;
            block.insert_operation_before(function, (*body).clone());
            destroy(function);
        }
    }
    Ok(())
}

fn operations<'c: 'a, 'a>(block: impl BlockLike<'c, 'a>) -> Vec<OperationRef<'c, 'a>> {
    std::iter::successors(block.first_operation(), |operation| operation.next_in_block()).collect()
}

fn name(operation: &OperationRef<'_, '_>) -> Option<String> {
    let name = operation.attribute("sym_name").ok()?;
    Some(StringAttribute::try_from(name).ok()?.value().to_owned())
}

/// The text of the function that `libdevice` calls `name`, if there is one here.
fn definition(name: &str) -> Option<String> {
    let function = name.strip_prefix("__nv_")?;
    TYPES.into_iter().find_map(|(suffix, ty)| {
        let stem = function.strip_suffix(suffix)?;
        let of = |table: &[(&str, &'static str)]| table.iter().find(|(n, _)| *n == stem).map(|(_, op)| *op);
        if let Some(operation) = of(&BINARY) {
            return Some(format!(
                "llvm.func internal @{name}(%x: {ty}, %z: {ty}) -> {ty} attributes {{always_inline}} {{\n\
                 %y = \"{operation}\"(%x, %z) : ({ty}, {ty}) -> {ty}\n\
                 llvm.return %y : {ty}\n}}"
            ));
        }
        let intrinsic = of(&INTRINSICS)?;
        Some(format!(
            "llvm.func internal @{name}(%x: {ty}) -> {ty} attributes {{always_inline}} {{\n\
             %y = \"llvm.intr.{intrinsic}\"(%x) : ({ty}) -> {ty}\n\
             llvm.return %y : {ty}\n}}"
        ))
    })
}

#[allow(unsafe_code, reason = "an operation is erased through the C interface")]
fn destroy(operation: OperationRef<'_, '_>) {
    // SAFETY: a declaration has no results and no body; nobody holds a reference to it after this.
    unsafe { mlirOperationDestroy(operation.to_raw()) }
}
