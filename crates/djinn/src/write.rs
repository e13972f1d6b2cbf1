//! Writing results: whole files or none.

use djinn_diag::{Context, Result, input};
use djinn_ir::Module;
use djinn_onnx_export::{ExportOptions, export};
use std::io::Write;
use std::path::Path;

/// Writes a file by way of a temporary one beside it, so that an error leaves no half-written file.
///
/// # Errors
/// Those of the file system, with the path as place.
pub fn write_atomically(
    path: &Path,
    write: &mut dyn FnMut(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let failed =
        |e: std::io::Error| input("file.write", e.to_string()).help("check the folder and its free space");
    let mut run = || -> Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let mut buffered = std::io::BufWriter::new(file.as_file_mut());
        write(&mut buffered).and_then(|()| buffered.flush()).map_err(failed)?;
        drop(buffered);
        set_permissions(&file).map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        Ok(())
    };
    run().at(|| path.display().to_string())
}

/// Temporary files are private; results are as readable as any new file.
#[cfg(unix)]
fn set_permissions(file: &tempfile::NamedTempFile) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn set_permissions(_file: &tempfile::NamedTempFile) -> std::io::Result<()> {
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
