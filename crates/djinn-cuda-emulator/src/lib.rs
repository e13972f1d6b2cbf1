//! A CUDA driver for tests on machines without a GPU. It is for correctness only: it says nothing about time.
//!
//! The library `libdjinn_cuda_emulator.so` has the C interface of CUDA's driver (`libcuda.so.1`) and of cuBLASLt, as far
//! as Djinn's runtime uses them. [`install`] makes a folder of links to it under those names; a process that is started
//! with that folder first in `LD_LIBRARY_PATH` computes on the emulator:
//!
//! ```no_run
//! let folder = std::path::Path::new("/tmp/emulator");
//! let library = djinn_cuda_emulator::library().expect("it is built");
//! djinn_cuda_emulator::install(&library, folder).expect("the folder is writable");
//! std::process::Command::new("a-test").env("LD_LIBRARY_PATH", folder).env("DJINN_EMULATOR_SEED", "7");
//! ```
//!
//! What makes it a good judge:
//! - Memory of devices lies at addresses that are not the host's, with gaps between allocations and no address given
//!   twice; every access is checked, fresh memory is filled with `0xff`. A fault is told on standard error and breaks the
//!   context, as in CUDA.
//! - Nothing runs when it is asked for. Where the program waits, chance (`DJINN_EMULATOR_SEED`) picks among the work that
//!   may run by the order of streams and events alone, so that a forgotten wait gives a wrong result for some seed.
//! - Graphs keep the dependencies that were captured and no others.
//! - Kernels are interpreted from their PTX ([`ptx`]); what is not known is refused when a module is loaded.
//!
//! Settings, by environment: `DJINN_EMULATOR_DEVICES` (1), `DJINN_EMULATOR_MEMORY` (bytes of a device, 4 GiB),
//! `DJINN_EMULATOR_SEED` (0), `DJINN_EMULATOR_INSTRUCTIONS` (of one launch, 2^38).
//!
//! Invariant: nothing unwinds into a caller; all state is behind one lock, which is free while a host function runs.

mod blas;
mod blas_abi;
mod driver;
pub mod ptx;

use std::io;
use std::path::{Path, PathBuf};

/// File name of the library.
const FILE: &str = "libdjinn_cuda_emulator.so";

/// The names that the library goes by in a folder of [`install`].
const NAMES: [&str; 4] = ["libcuda.so", "libcuda.so.1", "libcublasLt.so", "libcublasLt.so.12"];

/// The built library, which lies beside the running program or in the folder above (where tests find it).
pub fn library() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let mut folders = program.ancestors().skip(1).take(2);
    folders.find_map(|folder| {
        let beside = [folder.join(FILE), folder.join("deps").join(FILE)];
        beside.into_iter().find(|path| path.is_file())
    })
}

/// Makes a folder in which the library goes by the names of CUDA's driver and of cuBLASLt.
///
/// # Errors
/// If the folder or a link cannot be made.
pub fn install(library: &Path, folder: &Path) -> io::Result<()> {
    let library = library.canonicalize()?;
    std::fs::create_dir_all(folder)?;
    for name in NAMES {
        let link = folder.join(name);
        match std::fs::remove_file(&link) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => std::os::unix::fs::symlink(&library, &link)?,
        }
    }
    Ok(())
}
