//! Host code, compiled in memory.

use crate::session::{Compiler, Kind, Refusal, Session};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use melior::StringRef;
use melior::ir::attribute::StringAttribute;
use melior::ir::operation::OperationLike;
use melior::ir::{BlockLike, Module, RegionLike};
use mlir_sys::{
    MlirExecutionEngine, mlirExecutionEngineCreate, mlirExecutionEngineDestroy,
    mlirExecutionEngineLookupPacked,
};
use std::collections::BTreeMap;
use std::ffi::{CString, c_void};
use std::sync::Once;

/// From structured control flow, vectors and buffers to LLVM's own dialect. Arithmetic on bfloat16 is done in f32.
const PIPELINE: &str = "builtin.module(\
    func.func(arith-emulate-unsupported-floats{source-types=bf16 target-type=f32},\
        arith-expand{include-bf16=true},lower-vector-multi-reduction,convert-vector-to-scf),\
    canonicalize,cse,lower-affine,expand-strided-metadata,lower-affine,convert-scf-to-cf,\
    convert-math-to-llvm,convert-math-to-libm,convert-vector-to-llvm,convert-to-llvm,canonicalize,reconcile-unrealized-casts)";

/// LLVM's highest level of optimisation.
const OPTIMISATION: i32 = 3;

/// Compiled functions. Dropping it frees the code.
pub(crate) struct Jit {
    engine: MlirExecutionEngine,
    functions: BTreeMap<String, *mut c_void>,
}

impl Jit {
    /// The packed entry of a function, or null.
    pub(crate) fn function(&self, name: &str) -> *mut c_void {
        self.functions.get(name).copied().unwrap_or(std::ptr::null_mut())
    }

    /// The names of all functions, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
}

impl Drop for Jit {
    #[allow(unsafe_code, reason = "LLVM frees the code")]
    fn drop(&mut self) {
        // SAFETY: the engine is alive, and nobody else destroys it.
        unsafe { mlirExecutionEngineDestroy(self.engine) }
    }
}

/// Compiles every function of a module.
pub(crate) fn compile(compiler: &Compiler, text: &str) -> Result<Jit, Refusal> {
    publish_mathematics();
    compiler.with(None, text, |session| {
        let mut module = session.parse(text)?;
        let functions = functions(&module);
        session.lower(&mut module, PIPELINE)?;
        refuse_missing(&module)?;
        build(session, &module, &functions)
    })
}

#[allow(unsafe_code, reason = "LLVM compiles the module")]
fn build(session: &Session, module: &Module<'_>, names: &[String]) -> Result<Jit, Refusal> {
    session.forget();
    // SAFETY: the module is alive and wholly in LLVM's dialect; no libraries are named.
    let engine = unsafe {
        mlirExecutionEngineCreate(module.to_raw(), OPTIMISATION, 0, std::ptr::null(), false, false)
    };
    if engine.ptr.is_null() {
        return Err(session.refusal(Kind::Lowering));
    }
    let mut jit = Jit { engine, functions: BTreeMap::new() };
    for name in names {
        // SAFETY: the engine is alive. The first look-up compiles everything.
        let entry = unsafe { mlirExecutionEngineLookupPacked(engine, StringRef::new(name).to_raw()) };
        if entry.is_null() {
            return Err(Refusal::new(Kind::Symbol, format!("function '{name}' cannot be linked")));
        }
        jit.functions.insert(name.clone(), entry);
    }
    Ok(jit)
}

/// Names of the functions with a body, of either dialect of functions.
fn functions(module: &Module<'_>) -> Vec<String> {
    symbols(module, true)
}

/// Names of the functions of a module that have, or lack, a body.
fn symbols(module: &Module<'_>, defined: bool) -> Vec<String> {
    let mut names = Vec::new();
    let body = module.body();
    let mut next = body.first_operation();
    while let Some(operation) = next {
        let kind = operation.name();
        let kind = kind.as_string_ref();
        if matches!(kind.as_str(), Ok("func.func" | "llvm.func"))
            && operation.region(0).is_ok_and(|region| region.first_block().is_some()) == defined
            && let Ok(name) = operation.attribute("sym_name")
            && let Ok(name) = StringAttribute::try_from(name)
        {
            names.push(name.value().to_owned());
        }
        next = operation.next_in_block();
    }
    names
}

/// Refuses calls of functions that this process does not have: LLVM would find out while linking and print it.
fn refuse_missing(module: &Module<'_>) -> Result<(), Refusal> {
    let process = Library::this();
    for name in symbols(module, false) {
        if !name.starts_with("llvm.") && !is_known(&process, &name) {
            return Err(Refusal::new(
                Kind::Symbol,
                format!("no library of this process has a function '{name}'"),
            ));
        }
    }
    Ok(())
}

#[allow(unsafe_code, reason = "the dynamic linker looks a name up")]
fn is_known(process: &Library, name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the address is compared with null, never used.
    unsafe { process.get::<*const c_void>(name.as_bytes_with_nul()) }.is_ok()
}

/// Makes the functions of the C library's mathematics and of the compiler's runtime visible to compiled code.
#[allow(unsafe_code, reason = "a library of the system is loaded")]
fn publish_mathematics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for name in ["libm.so.6", "libgcc_s.so.1"] {
            // SAFETY: these libraries have no initialisers with effects; a missing one is not needed.
            if let Ok(library) = unsafe { Library::open(Some(name), RTLD_NOW | RTLD_GLOBAL) } {
                std::mem::forget(library);
            }
        }
    });
}
