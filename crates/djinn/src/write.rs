//! Writing results: whole files or none.

use djinn_diag::{Context, Result, input};
use djinn_ir::Module;
use djinn_onnx_export::{ExportOptions, export};
use std::io::Write;
use std::path::Path;

/// Writes a file by way of a temporary one beside it, so that an error leaves no half-written file. A symbolic link is
/// followed; what is not a regular file (a pipe, a device) is written to directly, never replaced.
///
/// # Errors
/// Those of the file system, with the path as place.
pub fn write_atomically(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    write_through(path, write)
        .map_err(|e| input("file.write", e.to_string()).help("check the folder and its free space"))
        .at(|| path.display().to_string())
}

fn write_through(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let target = match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => return Err(std::io::Error::other("this is a directory")),
        Ok(m) if !m.is_file() => {
            let mut out = std::io::BufWriter::new(std::fs::OpenOptions::new().write(true).open(path)?);
            return write(&mut out).and_then(|()| out.flush());
        }
        Ok(_) => path.canonicalize()?,
        Err(_) => path.to_path_buf(),
    };
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut buffered = std::io::BufWriter::new(file.as_file_mut());
    write(&mut buffered).and_then(|()| buffered.flush())?;
    drop(buffered);
    make_readable(file.path())?;
    file.persist(&target)?;
    Ok(())
}

/// Temporary files are private; results are as readable as any new file.
#[cfg(unix)]
pub(crate) fn make_readable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
pub(crate) fn make_readable(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Writes one function of the module as ONNX; gives the number of nodes. Weights beyond protobuf's 2 GB go into a
/// file beside the model.
///
/// # Errors
/// What ONNX cannot express (`unsupported`), and those of the file system.
pub fn export_onnx(module: &Module, path: &Path, mut options: ExportOptions) -> Result<usize> {
    if let Some(name) = path.file_name() {
        options.external_file_name = format!("{}.data", name.to_string_lossy());
    }
    let exported = export(module, &options)?;
    if let Some(external) = &exported.external {
        let data_path = path.with_file_name(&external.file_name);
        write_atomically(&data_path, &mut |out| external.write(out))?;
    }
    write_atomically(path, &mut |out| out.write_all(&exported.model))?;
    Ok(exported.node_count)
}
