//! The exported functions and the layout of what crosses them.
//!
//! Texts go in as [`Slice`], come out as [`Text`] and are given back with `djinn_llvm_text_free`. A function that can
//! refuse returns 0 for success, else a [`Kind`]; the text is then `place`, a NUL, `message`. `djinn-mlir` holds the
//! other side of this interface; [`djinn_llvm_abi`] changes whenever it does.

use crate::host::{self, Jit};
use crate::ptx;
use crate::session::{Compiler, Kind, Refusal};
use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The version of this interface.
const ABI: u32 = 1;

/// Borrowed text; null data means none.
#[repr(C)]
pub(crate) struct Slice {
    data: *const u8,
    len: usize,
}

impl Slice {
    /// # Safety
    /// Data is null, or points to `len` bytes that outlive the call.
    #[allow(unsafe_code, reason = "the text comes through the C interface")]
    unsafe fn text(&self) -> Result<Option<&str>, Refusal> {
        if self.data.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's contract.
        let bytes = unsafe { std::slice::from_raw_parts(self.data, self.len) };
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
        text.map(Some).ok_or_else(|| Refusal::new(Kind::Module, "the text is not UTF-8 or holds a NUL"))
    }

    /// # Safety
    /// As for [`Slice::text`].
    #[allow(unsafe_code, reason = "the text comes through the C interface")]
    unsafe fn required(&self) -> Result<&str, Refusal> {
        // SAFETY: the caller's contract.
        unsafe { self.text() }?.ok_or_else(|| Refusal::new(Kind::Internal, "a text is missing"))
    }
}

/// Owned text.
#[repr(C)]
pub(crate) struct Text {
    data: *mut u8,
    len: usize,
    capacity: usize,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let mut bytes = std::mem::ManuallyDrop::new(text.into_bytes());
        Self { data: bytes.as_mut_ptr(), len: bytes.len(), capacity: bytes.capacity() }
    }
}

/// Writes a result where the caller wants it; returns the status.
///
/// # Safety
/// `out` is valid for writing.
#[allow(unsafe_code, reason = "the result leaves through the C interface")]
unsafe fn answer(out: *mut Text, work: impl FnOnce() -> Result<String, Refusal>) -> u32 {
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Refusal::new(Kind::Internal, "the MLIR plugin panicked")));
    let (status, text) = match result {
        Ok(text) => (0, text),
        Err(refusal) => (refusal.kind as u32, format!("{}\0{}", refusal.place, refusal.message)),
    };
    // SAFETY: the caller's contract.
    unsafe { out.write(Text::from(text)) };
    status
}

/// The version of this interface.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn djinn_llvm_abi() -> u32 {
    ABI
}

/// The version of LLVM, as a C string that lives for ever.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn djinn_llvm_version() -> *const c_char {
    concat!(env!("DJINN_LLVM_VERSION"), "\0").as_ptr().cast()
}

/// A new compiler.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) extern "C" fn djinn_llvm_compiler_new() -> *mut Compiler {
    Box::into_raw(Box::default())
}

/// Frees a compiler.
///
/// # Safety
/// It came from [`djinn_llvm_compiler_new`] and nobody uses it any more.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_compiler_free(compiler: *mut Compiler) {
    // SAFETY: the caller's contract.
    drop(unsafe { Box::from_raw(compiler) });
}

/// Frees a text.
///
/// # Safety
/// It came from a function of this interface and was not freed before.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_text_free(text: Text) {
    // SAFETY: the three values come from a vector that was given away.
    drop(unsafe { Vec::from_raw_parts(text.data, text.len, text.capacity) });
}

/// Reads, verifies and prints a module.
///
/// # Safety
/// The compiler is alive, the slices are valid, `out` can be written.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_check(
    compiler: *const Compiler,
    module: Slice,
    irdl: Slice,
    out: *mut Text,
) -> u32 {
    // SAFETY: the caller's contract.
    unsafe {
        answer(out, || {
            let (text, irdl) = (module.required()?, irdl.text()?);
            (*compiler).with(irdl, text, |session| session.print(&session.parse(text)?))
        })
    }
}

/// Compiles the GPU modules of a module to PTX.
///
/// # Safety
/// As for [`djinn_llvm_check`].
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_ptx(
    compiler: *const Compiler,
    module: Slice,
    chip: Slice,
    out: *mut Text,
) -> u32 {
    // SAFETY: the caller's contract.
    unsafe { answer(out, || ptx::compile(&*compiler, module.required()?, chip.required()?)) }
}

/// Compiles the functions of a module to host code; the text holds their names, one a line.
///
/// # Safety
/// As for [`djinn_llvm_check`]; `jit` can be written and is, when the status is 0.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_jit(
    compiler: *const Compiler,
    module: Slice,
    jit: *mut *mut Jit,
    out: *mut Text,
) -> u32 {
    // SAFETY: the caller's contract.
    unsafe {
        answer(out, || {
            let made = host::compile(&*compiler, module.required()?)?;
            let names: Vec<&str> = made.names().collect();
            let names = names.join("\n");
            jit.write(Box::into_raw(Box::new(made)));
            Ok(names)
        })
    }
}

/// The packed entry of a compiled function: it takes an array of pointers to the arguments. Null if there is none.
///
/// # Safety
/// The compiled functions are alive, and the slice is valid.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_jit_function(jit: *const Jit, name: Slice) -> *mut c_void {
    // SAFETY: the caller's contract.
    unsafe { name.required().map_or(std::ptr::null_mut(), |name| (*jit).function(name)) }
}

/// Frees compiled functions.
///
/// # Safety
/// They came from [`djinn_llvm_jit`]; nobody calls them any more.
#[allow(unsafe_code, reason = "exported")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn djinn_llvm_jit_free(jit: *mut Jit) {
    // SAFETY: the caller's contract.
    drop(unsafe { Box::from_raw(jit) });
}
