//! Tells the linker where MLIR is, and makes up for the C interface that Debian ships only as archives.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MLIR_SYS_220_PREFIX");
    let libraries = PathBuf::from(llvm_config("--libdir"));
    println!("cargo:rustc-env=DJINN_LLVM_VERSION={}", llvm_config("--version"));
    println!("cargo:rustc-cdylib-link-arg=-Wl,-rpath,{}", libraries.display());
    if !libraries.join("libMLIR-C.so").exists() {
        let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
        std::fs::write(out.join("libMLIR-C.so"), linker_script(&libraries)).expect("OUT_DIR is writable");
        println!("cargo:rustc-link-search=native={}", out.display());
    }
}

/// One answer of the `llvm-config` that `MLIR_SYS_220_PREFIX` names.
fn llvm_config(question: &str) -> String {
    println!("cargo:rerun-if-changed={}", program().display());
    let output = Command::new(program()).arg(question).output().unwrap_or_else(|error| {
        panic!("{} does not run: {error}; tools/setup installs LLVM 22", program().display())
    });
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn program() -> PathBuf {
    let prefix = std::env::var_os("MLIR_SYS_220_PREFIX").map(PathBuf::from).unwrap_or_default();
    if prefix.as_os_str().is_empty() { PathBuf::from("llvm-config") } else { prefix.join("bin/llvm-config") }
}

/// A linker script that stands for `libMLIR-C.so`: the archives of the C interface, then what they need.
fn linker_script(libraries: &Path) -> String {
    let entries = std::fs::read_dir(libraries).expect("the folder that llvm-config names is readable");
    let mut archives: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libMLIRCAPI")))
        .filter(|path| path.extension().is_some_and(|extension| extension == "a"))
        .map(|path| path.display().to_string())
        .collect();
    archives.sort();
    archives.extend(["libMLIR.so", "libLLVM.so"].map(|name| libraries.join(name).display().to_string()));
    format!("GROUP( {} )\n", archives.join(" "))
}
