//! Where the weights of a bundle are: `--weights`.

use crate::args::{RunArgs, WeightsMode};
use crate::run::complain;
use djinn::diag::Result;
use djinn::{Bundle, Weights};
use std::path::{Path, PathBuf};

/// What the names of files of weights beside a model end in.
const EXTENSIONS: [&str; 5] = ["safetensors", "data", "bin", "weight", "weights"];
/// Files that are looked at, at most.
const MAX_FILES: usize = 64;

/// What the command line says.
pub(crate) fn of(args: &RunArgs) -> Weights {
    match args.weights {
        WeightsMode::Packed => Weights::Packed,
        WeightsMode::Reference => {
            let mut files = args.input.clone();
            args.input.iter().for_each(|model| files.extend(beside(model)));
            files.truncate(MAX_FILES);
            Weights::Referenced(files)
        }
    }
}

/// Writes a bundle, and says where its weights are if some are to be outside.
pub(crate) fn write(path: &Path, bundle: &Bundle, weights: &Weights) -> Result<()> {
    let bytes = djinn::write_bundle_with(path, bundle, weights)?;
    if let Weights::Referenced(_) = weights {
        let (outside, packed) = (bytes.outside as f64 / 1e6, bytes.packed as f64 / 1e6);
        let why = if bytes.packed > 0 { ": passes have computed them" } else { "" };
        complain(&format!(
            "weights: {outside:.3} MB stay in the model's files, {packed:.3} MB are in the bundle{why}\n"
        ));
    }
    Ok(())
}

/// Files of weights in the folder of a model, by name.
fn beside(model: &Path) -> Vec<PathBuf> {
    let folder = model.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|f| f.path());
    let holds = |p: &PathBuf| {
        p != model && p.is_file() && p.extension().is_some_and(|e| EXTENSIONS.iter().any(|known| e == *known))
    };
    let mut files: Vec<PathBuf> = files.filter(holds).collect();
    files.sort();
    files
}
