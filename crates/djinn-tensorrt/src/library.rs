//! Where TensorRT is and which one it is.

use djinn_diag::{Result, unsupported};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Names the library's file or the folder that it is in.
pub const LIBRARY_VARIABLE: &str = "DJINN_TENSORRT_LIBRARY";

/// Names a Python environment that may hold the library as a package; searched last.
pub const VENV_VARIABLE: &str = "DJINN_VENV";

/// File names, the first that loads is taken.
const NAMES: [&str; 3] = ["libtensorrt_rtx.so.1", "libnvinfer.so.11", "libnvinfer.so.10"];

/// Folder of the package `tensorrt-rtx-cu12-libs` among the packages of an environment.
const PACKAGE: &str = "tensorrt_rtx_libs";

/// Versions of TensorRT-RTX whose interface the bindings were generated from: 1.7.
const SUPPORTED: (u32, u32) = (1, 7);

const HELP: &str = "install the Python package tensorrt-rtx-cu12-libs 1.7 (tools/setup build does), or name the library \
                    file or its folder in DJINN_TENSORRT_LIBRARY";

/// Which TensorRT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TensorRT for RTX: builds without a GPU, compiles kernels for the GPU at hand when it loads an engine.
    Rtx,
    /// The full TensorRT.
    Full,
}

/// TensorRT, loaded. One per process: a second load gives the first one.
#[derive(Debug, Clone)]
pub struct Library {
    path: PathBuf,
    kind: Kind,
    version: (u32, u32, u32),
}

impl Library {
    /// Loads the library that the environment names, else the one that the system's loader finds, else the one of the
    /// Python environment that [`VENV_VARIABLE`] names.
    ///
    /// # Errors
    /// `tensorrt.missing` if there is none, `tensorrt.version` if it is none that the bindings know.
    pub fn load() -> Result<Library> {
        if let Some(named) = std::env::var_os(LIBRARY_VARIABLE).filter(|v| !v.is_empty()) {
            return Library::load_from(Path::new(&named));
        }
        let mut candidates: Vec<OsString> = NAMES.iter().map(OsString::from).collect();
        if let Some(venv) = std::env::var_os(VENV_VARIABLE) {
            candidates.extend(packaged(Path::new(&venv)).into_iter().map(PathBuf::into_os_string));
        }
        let found = candidates.iter().find_map(|c| Some((c, open(Path::new(c)).ok()?)));
        let Some((path, opened)) = found else {
            return Err(unsupported("tensorrt.missing", "TensorRT is not installed here").help(HELP));
        };
        Library::take(Path::new(path), &opened)
    }

    /// Loads this file, or the one in this folder.
    ///
    /// # Errors
    /// As [`Library::load`].
    pub fn load_from(place: &Path) -> Result<Library> {
        let files: Vec<PathBuf> = if place.is_dir() {
            NAMES.iter().map(|n| place.join(n)).filter(|p| p.exists()).collect()
        } else {
            vec![place.to_owned()]
        };
        let missing = |why: String| {
            let message = format!("there is no TensorRT at '{}'{why}", place.display());
            unsupported("tensorrt.missing", message).help(HELP)
        };
        let path = files.first().ok_or_else(|| missing(String::new()))?;
        let opened = open(path).map_err(|e| missing(format!(": {e}")))?;
        Library::take(path, &opened)
    }

    /// Checks the version before the bindings call anything by position in a table of functions.
    fn take(path: &Path, opened: &libloading::Library) -> Result<Library> {
        let kind = if path.to_string_lossy().contains("rtx") { Kind::Rtx } else { Kind::Full };
        let version = version(opened, kind).ok_or_else(|| {
            unsupported("tensorrt.missing", format!("'{}' is not TensorRT", path.display())).help(HELP)
        })?;
        let known = kind == Kind::Rtx && (version.0, version.1) == SUPPORTED;
        if !known {
            let name = if kind == Kind::Rtx { "TensorRT-RTX" } else { "TensorRT" };
            let message = format!("{name} {}.{}.{} is not supported", version.0, version.1, version.2);
            let help =
                format!("the bindings are those of TensorRT-RTX {}.{}; {HELP}", SUPPORTED.0, SUPPORTED.1);
            return Err(unsupported("tensorrt.version", message).help(help));
        }
        trtx::dynamically_load_tensorrt(Some(path))
            .map_err(|e| unsupported("tensorrt.missing", e.to_string()).help(HELP))?;
        Ok(Library { path: path.to_owned(), kind, version })
    }

    /// Which TensorRT it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Major, minor and patch version.
    pub fn version(&self) -> (u32, u32, u32) {
        self.version
    }

    /// Name and version, such as `tensorrt-rtx 1.7.1`: part of the key of what is built with it.
    pub fn name(&self) -> String {
        let (major, minor, patch) = self.version;
        let name = if self.kind == Kind::Rtx { "tensorrt-rtx" } else { "tensorrt" };
        format!("{name} {major}.{minor}.{patch}")
    }

    /// The file, or the name that the system's loader found.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The library within the packages of a Python environment.
fn packaged(venv: &Path) -> Option<PathBuf> {
    let mut pythons: Vec<PathBuf> =
        std::fs::read_dir(venv.join("lib")).ok()?.flatten().map(|e| e.path()).collect();
    pythons.sort();
    let file = |p: PathBuf| p.join("site-packages").join(PACKAGE).join(NAMES[0]);
    pythons.into_iter().map(file).find(|f| f.exists())
}

#[allow(unsafe_code, reason = "loading a library runs its initialisers")]
fn open(path: &Path) -> std::result::Result<libloading::Library, libloading::Error> {
    // SAFETY: TensorRT's initialisers have no preconditions; a file that is something else was put there by the user.
    unsafe { libloading::Library::new(path) }
}

/// TensorRT says its version as one number: RTX counts major · 10000 + minor · 100 + patch, as the full one does
/// (`NvInferVersion.h`, `NV_TENSORRT_VERSION_INT`).
#[allow(unsafe_code, reason = "the function is a foreign one")]
fn version(library: &libloading::Library, kind: Kind) -> Option<(u32, u32, u32)> {
    // SAFETY: both functions have this signature in every version (`NvInferRuntimeBase.h`).
    let number = unsafe {
        let function = library.get::<unsafe extern "C" fn() -> i32>(b"getInferLibVersion\0").ok()?;
        u32::try_from(function()).ok()?
    };
    // TensorRT before 10 counted minor versions in hundreds.
    Some(match kind {
        Kind::Full if number < 10000 => (number / 1000, number / 100 % 10, number % 100),
        _ => (number / 10000, number / 100 % 100, number % 100),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_missing_and_what_to_do() {
        let error = Library::load_from(Path::new("/nonexistent/libtensorrt_rtx.so.1")).unwrap_err();
        assert_eq!(error.code, "tensorrt.missing");
        assert!(error.help.is_some_and(|h| h.contains(LIBRARY_VARIABLE)));
    }

    #[test]
    fn a_library_that_is_not_tensorrt_is_refused() {
        match Library::load_from(Path::new("libc.so.6")) {
            Err(error) => assert_eq!(error.code, "tensorrt.missing"),
            Ok(library) => panic!("{library:?}"),
        }
    }
}
