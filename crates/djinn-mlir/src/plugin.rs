//! The plugin's C interface: the other side of `djinn-llvm/src/abi.rs`.

use djinn_diag::{Context as _, Diagnostic, Result, input, internal, unsupported};
use libloading::Library;
use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};

/// The version of the interface that this file describes.
const ABI: u32 = 1;

/// The plugin's file.
const FILE: &str = "libdjinn_llvm.so";

/// The variable that names the plugin's file.
const VARIABLE: &str = "DJINN_LLVM_LIBRARY";

/// Borrowed text; null data means none.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Slice {
    data: *const u8,
    len: usize,
}

impl From<Option<&str>> for Slice {
    fn from(text: Option<&str>) -> Self {
        text.map_or(Self { data: std::ptr::null(), len: 0 }, Self::from)
    }
}

impl From<&str> for Slice {
    fn from(text: &str) -> Self {
        Self { data: text.as_ptr(), len: text.len() }
    }
}

/// Text owned by the plugin.
#[repr(C)]
pub(crate) struct Text {
    data: *mut u8,
    len: usize,
    capacity: usize,
}

/// The plugin's compiler and its compiled functions, known by address only.
pub(crate) enum RawCompiler {}
pub(crate) enum RawJit {}

/// The packed form of a compiled function.
pub(crate) type Packed = unsafe extern "C" fn(*mut *mut c_void);

/// The functions of a loaded plugin. It is never unloaded: LLVM leaves threads' data and handlers behind.
pub(crate) struct Plugin {
    pub(crate) version: String,
    pub(crate) compiler_new: unsafe extern "C" fn() -> *mut RawCompiler,
    pub(crate) compiler_free: unsafe extern "C" fn(*mut RawCompiler),
    pub(crate) check: unsafe extern "C" fn(*const RawCompiler, Slice, Slice, *mut Text) -> u32,
    pub(crate) ptx: unsafe extern "C" fn(*const RawCompiler, Slice, Slice, *mut Text) -> u32,
    pub(crate) jit: unsafe extern "C" fn(*const RawCompiler, Slice, *mut *mut RawJit, *mut Text) -> u32,
    pub(crate) jit_function: unsafe extern "C" fn(*const RawJit, Slice) -> Option<Packed>,
    pub(crate) jit_free: unsafe extern "C" fn(*mut RawJit),
    text_free: unsafe extern "C" fn(Text),
}

impl Plugin {
    /// Loads the plugin that [`VARIABLE`] names, else the one beside the executable or in the folder above.
    pub(crate) fn load() -> Result<Self> {
        let path = find()?;
        Self::open(&path).at(|| path.display().to_string())
    }

    #[allow(unsafe_code, reason = "a shared library is loaded")]
    fn open(path: &Path) -> Result<Self> {
        // SAFETY: the initialisers of LLVM register options and nothing else.
        let library = unsafe { Library::new(path) }
            .map_err(|error| missing(&format!("it cannot be loaded: {error}")))?;
        // Never dropped: see the type.
        let library: &'static Library = Box::leak(Box::new(library));
        // SAFETY: every version of the interface has this function.
        let abi: unsafe extern "C" fn() -> u32 = unsafe { symbol(library, b"djinn_llvm_abi\0") }?;
        // SAFETY: it only returns a number.
        let found = unsafe { abi() };
        if found != ABI {
            return Err(missing(&format!("its interface is version {found}, and {ABI} is needed")));
        }
        // SAFETY: the types are those of version ABI of the interface.
        unsafe {
            let version: unsafe extern "C" fn() -> *const c_char = symbol(library, b"djinn_llvm_version\0")?;
            Ok(Self {
                version: CStr::from_ptr(version()).to_string_lossy().into_owned(),
                compiler_new: symbol(library, b"djinn_llvm_compiler_new\0")?,
                compiler_free: symbol(library, b"djinn_llvm_compiler_free\0")?,
                check: symbol(library, b"djinn_llvm_check\0")?,
                ptx: symbol(library, b"djinn_llvm_ptx\0")?,
                jit: symbol(library, b"djinn_llvm_jit\0")?,
                jit_function: symbol(library, b"djinn_llvm_jit_function\0")?,
                jit_free: symbol(library, b"djinn_llvm_jit_free\0")?,
                text_free: symbol(library, b"djinn_llvm_text_free\0")?,
            })
        }
    }

    /// What a call returned as status and text: the text, or the diagnostic that the plugin described.
    #[allow(unsafe_code, reason = "the plugin's text is read and given back")]
    pub(crate) fn answer(&self, call: impl FnOnce(*mut Text) -> u32) -> Result<String> {
        let mut text = Text { data: std::ptr::null_mut(), len: 0, capacity: 0 };
        let status = call(&raw mut text);
        if text.data.is_null() {
            return Err(internal("mlir.interface", "the MLIR plugin gave no answer"));
        }
        // SAFETY: the plugin wrote a text that is alive until it is freed, once, here.
        let answer = unsafe {
            let answer =
                String::from_utf8_lossy(std::slice::from_raw_parts(text.data, text.len)).into_owned();
            (self.text_free)(text);
            answer
        };
        if status == 0 { Ok(answer) } else { Err(refusal(status, &answer)) }
    }
}

/// # Safety
/// The plugin's function has the type that `T` says.
#[allow(unsafe_code, reason = "a function of the plugin is looked up")]
unsafe fn symbol<T: Copy>(library: &'static Library, name: &[u8]) -> Result<T> {
    // SAFETY: the caller's contract.
    unsafe { library.get::<T>(name) }
        .map(|found| *found)
        .map_err(|error| missing(&format!("a function is missing: {error}")))
}

/// Where the plugin is.
fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let executable = std::env::current_exe().ok();
    let folders = executable.iter().flat_map(|path| path.ancestors().skip(1).take(2));
    folders
        .map(|folder| folder.join(FILE))
        .find(|path| path.is_file())
        .ok_or_else(|| missing(&format!("{FILE} is neither beside the program nor named by {VARIABLE}")))
}

fn missing(why: &str) -> Box<Diagnostic> {
    unsupported("mlir.missing", format!("the MLIR plugin is not available: {why}"))
        .help("install LLVM 22 (tools/setup), build it with `cargo build --release -p djinn-llvm`, and set DJINN_LLVM_LIBRARY if it lies elsewhere")
}

/// The diagnostic for a status and a text `place`, NUL, `message`. The numbers are those of `djinn-llvm`'s `Kind`.
fn refusal(status: u32, text: &str) -> Box<Diagnostic> {
    let (place, message) = text.split_once('\0').unwrap_or(("", text));
    let diagnostic = match status {
        1 => input("mlir.module", message),
        2 => internal("mlir.dialect", message),
        3 => unsupported("mlir.lowering", message),
        4 => unsupported("mlir.symbol", message),
        5 => input("mlir.chip", message),
        _ => internal("mlir.internal", message),
    };
    if place.is_empty() { diagnostic } else { diagnostic.at(place) }
}
