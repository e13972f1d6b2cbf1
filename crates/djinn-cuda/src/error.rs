//! Errors of CUDA as diagnostics.

use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;
use djinn_diag::{Diagnostic, input, internal, unsupported};

/// A failed call; `what` says what was tried, such as "allocating 12 bytes".
pub(crate) fn failed(what: &str, error: DriverError) -> Box<Diagnostic> {
    use CUresult as E;
    let name = |text: Result<&std::ffi::CStr, DriverError>| {
        text.map(|t| t.to_string_lossy().into_owned()).unwrap_or_else(|_| "unknown error".to_owned())
    };
    let message = format!("{what}: {} ({})", name(error.error_string()), name(error.error_name()));
    match error.0 {
        E::CUDA_ERROR_OUT_OF_MEMORY => input("cuda.memory", message)
            .help("free memory of the GPU, or plan for smaller sizes or a smaller budget"),
        E::CUDA_ERROR_NO_DEVICE | E::CUDA_ERROR_INVALID_DEVICE => {
            unsupported("cuda.device", message).help("run on the host, or name a GPU that is there")
        }
        E::CUDA_ERROR_ILLEGAL_ADDRESS
        | E::CUDA_ERROR_MISALIGNED_ADDRESS
        | E::CUDA_ERROR_LAUNCH_FAILED
        | E::CUDA_ERROR_LAUNCH_TIMEOUT => internal("cuda.kernel", message).help(
            "if the kernels of the bundle are as djinn-opt wrote them, this is a bug in Djinn: please report it; else write the bundle again",
        ),
        E::CUDA_ERROR_INVALID_PTX
        | E::CUDA_ERROR_NO_BINARY_FOR_GPU
        | E::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => unsupported("cuda.ptx", message)
            .help("update the driver, or write the bundle for this GPU's compute capability"),
        _ => unsupported("cuda.driver", message),
    }
}

/// Gives a failed call its message.
pub(crate) trait Explain<T> {
    /// What was tried, if it failed.
    fn explain(self, what: impl FnOnce() -> String) -> djinn_diag::Result<T>;
}

impl<T> Explain<T> for Result<T, DriverError> {
    fn explain(self, what: impl FnOnce() -> String) -> djinn_diag::Result<T> {
        self.map_err(|error| failed(&what(), error))
    }
}
