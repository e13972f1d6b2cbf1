//! What the plugin does, as a safe interface: [`Compiler`], and the functions it compiles.

use crate::nesting;
use crate::plugin::{Packed, Plugin, RawCompiler, RawJit, Slice};
use djinn_diag::{Diagnostic, Result, internal};
use std::collections::BTreeMap;
use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// MLIR and LLVM. Threads may share one; each call works in a context of its own, and contexts are kept for the next
/// call (making one takes some 15 ms).
pub struct Compiler {
    plugin: &'static Plugin,
    raw: NonNull<RawCompiler>,
}

#[allow(unsafe_code, reason = "the plugin's compiler is known by address")]
// SAFETY: the plugin guards what the compiler holds with a lock and uses no thread-local state.
unsafe impl Send for Compiler {}
#[allow(unsafe_code, reason = "the plugin's compiler is known by address")]
// SAFETY: as above.
unsafe impl Sync for Compiler {}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").field("version", &self.version()).finish_non_exhaustive()
    }
}

impl Compiler {
    /// Loads the plugin: the file that `DJINN_LLVM_LIBRARY` names, else `libdjinn_llvm.so` in the executable's folder
    /// or in the one above. It is loaded once in a process; an `mlir.missing` diagnostic says how to get it.
    #[allow(unsafe_code, reason = "the plugin makes a compiler")]
    pub fn load() -> Result<Self> {
        static PLUGIN: OnceLock<std::result::Result<Plugin, Box<Diagnostic>>> = OnceLock::new();
        let plugin = PLUGIN.get_or_init(Plugin::load).as_ref().map_err(Clone::clone)?;
        // SAFETY: the function needs nothing.
        let raw = NonNull::new(unsafe { (plugin.compiler_new)() });
        let raw = raw.ok_or_else(|| internal("mlir.interface", "the MLIR plugin makes no compiler"))?;
        Ok(Self { plugin, raw })
    }

    /// The version of LLVM, such as `22.1.0`.
    pub fn version(&self) -> &str {
        &self.plugin.version
    }

    /// Reads and verifies a module, and prints it in MLIR's generic form. With `irdl`, the definition of a dialect in
    /// IRDL, its operations are held to it and those of unknown dialects are refused; without, they are read as they
    /// stand.
    #[allow(unsafe_code, reason = "the plugin is called")]
    pub fn check(&self, module: &str, irdl: Option<&str>) -> Result<String> {
        nesting::check(module)?;
        irdl.map_or(Ok(()), nesting::check)?;
        // SAFETY: the compiler lives as long as `self`, and the texts outlive the call.
        self.plugin.answer(|out| unsafe {
            (self.plugin.check)(self.raw.as_ptr(), Slice::from(module), Slice::from(irdl), out)
        })
    }

    /// Compiles every `func.func` and `llvm.func` of a module to code of this machine, with all that its processor
    /// can do. The dialects func, scf, cf, arith, math, vector, memref, affine and llvm are lowered.
    #[allow(unsafe_code, reason = "the plugin is called")]
    pub fn jit(&self, module: &str) -> Result<Jit> {
        nesting::check(module)?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: as in `check`; the plugin writes `raw` if it succeeds.
        let names = self.plugin.answer(|out| unsafe {
            (self.plugin.jit)(self.raw.as_ptr(), Slice::from(module), &raw mut raw, out)
        })?;
        let raw =
            NonNull::new(raw).ok_or_else(|| internal("mlir.interface", "the MLIR plugin made no code"))?;
        let code = Arc::new(Code { plugin: self.plugin, raw });
        let functions = names.lines().filter_map(|name| Some((name.to_owned(), code.entry(name)?))).collect();
        Ok(Jit { code, functions })
    }

    /// Compiles every `gpu.module` of a module to PTX for a GPU such as `sm_90`. Functions of CUDA's `libdevice` are
    /// not there, so most of the math dialect is refused with `mlir.symbol`.
    #[allow(unsafe_code, reason = "the plugin is called")]
    pub fn ptx(&self, module: &str, chip: &str) -> Result<String> {
        nesting::check(module)?;
        // SAFETY: as in `check`.
        self.plugin.answer(|out| unsafe {
            (self.plugin.ptx)(self.raw.as_ptr(), Slice::from(module), Slice::from(chip), out)
        })
    }
}

impl Drop for Compiler {
    #[allow(unsafe_code, reason = "the plugin frees its compiler")]
    fn drop(&mut self) {
        // SAFETY: the compiler came from the plugin and is freed once.
        unsafe { (self.plugin.compiler_free)(self.raw.as_ptr()) }
    }
}

/// Compiled functions. The code is freed with the last of them.
#[derive(Debug, Clone)]
pub struct Jit {
    code: Arc<Code>,
    functions: BTreeMap<String, Packed>,
}

impl Jit {
    /// The function of that name, which keeps the code alive.
    pub fn function(&self, name: &str) -> Option<JitFunction> {
        Some(JitFunction { _code: self.code.clone(), entry: *self.functions.get(name)? })
    }

    /// The names of the functions, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.keys().map(String::as_str)
    }
}

/// A compiled function.
#[derive(Debug, Clone)]
pub struct JitFunction {
    _code: Arc<Code>,
    entry: Packed,
}

impl JitFunction {
    /// Calls the function.
    ///
    /// # Safety
    /// `args` holds one entry for every argument of the function, then one for its result if it has one. `args[i]`
    /// points to the i-th argument's value, which has the argument's type: for a `!llvm.ptr` a pointer, for an `i64`
    /// an `i64`; the result's entry points to where the result goes. What the function reads through its pointers is
    /// initialised and what it writes is exclusively the caller's, as far as the function's text goes.
    #[allow(unsafe_code, reason = "compiled code is called")]
    pub unsafe fn call(&self, args: &mut [*mut c_void]) {
        // SAFETY: the caller's contract; the code lives as long as `self`.
        unsafe { (self.entry)(args.as_mut_ptr()) }
    }
}

/// Compiled code in memory.
struct Code {
    plugin: &'static Plugin,
    raw: NonNull<RawJit>,
}

#[allow(unsafe_code, reason = "compiled code is known by address")]
// SAFETY: code is not changed once it is there.
unsafe impl Send for Code {}
#[allow(unsafe_code, reason = "compiled code is known by address")]
// SAFETY: as above.
unsafe impl Sync for Code {}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Code").finish_non_exhaustive()
    }
}

impl Code {
    #[allow(unsafe_code, reason = "the plugin is called")]
    fn entry(&self, name: &str) -> Option<Packed> {
        // SAFETY: the code is alive, and the name outlives the call.
        unsafe { (self.plugin.jit_function)(self.raw.as_ptr(), Slice::from(name)) }
    }
}

impl Drop for Code {
    #[allow(unsafe_code, reason = "the plugin frees its code")]
    fn drop(&mut self) {
        // SAFETY: nobody can call the code any more: every function holds it alive.
        unsafe { (self.plugin.jit_free)(self.raw.as_ptr()) }
    }
}
