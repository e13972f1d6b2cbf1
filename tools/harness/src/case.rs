//! Case folders: a model, its inputs and what it must compute.

use djinn::ir::{ArgumentKind, Function, TensorData};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The files of each format that a case folder may hold.
const FILES: [(&str, &[&str]); 3] = [
    ("pt2", &["model.pt2", "model.pt2.gz"]),
    ("onnx", &["model.onnx", "model.onnx.gz"]),
    ("core", &["core_aten.json.gz"]),
];

/// One model of a case folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Case {
    /// The folder's name.
    pub(crate) name: String,
    /// `pt2`, `onnx`, or `core` for the decomposed program beside a `.pt2`.
    pub(crate) format: String,
    /// The folder.
    pub(crate) dir: PathBuf,
    /// The model file.
    pub(crate) model: PathBuf,
}

/// The cases of these formats in the folders, each of which is a case or holds cases; sorted by name.
pub(crate) fn find(dirs: &[PathBuf], formats: &[String]) -> Result<Vec<Case>, String> {
    if let Some(unknown) = formats.iter().find(|f| !FILES.iter().any(|(known, _)| known == f)) {
        return Err(format!("unknown format '{unknown}': choose among pt2, onnx and core"));
    }
    let mut cases = Vec::new();
    for dir in dirs {
        let before = cases.len();
        add_case(dir, formats, &mut cases);
        if cases.len() == before {
            let failed = |e: std::io::Error| format!("{}: {e}", dir.display());
            let mut inner = Vec::new();
            for entry in std::fs::read_dir(dir).map_err(failed)? {
                inner.push(entry.map_err(failed)?.path());
            }
            inner.sort();
            inner.iter().for_each(|d| add_case(d, formats, &mut cases));
        }
        if cases.len() == before {
            return Err(format!("{}: no case here (a folder with model.pt2 or model.onnx)", dir.display()));
        }
    }
    Ok(cases)
}

fn add_case(dir: &Path, formats: &[String], cases: &mut Vec<Case>) {
    let name = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    for (format, files) in FILES {
        let model = files.iter().map(|f| dir.join(f)).find(|p| p.is_file());
        if let Some(model) = model.filter(|_| formats.iter().any(|f| f == format)) {
            let (name, dir) = (name.clone(), dir.to_owned());
            cases.push(Case { name, format: format.into(), dir, model });
        }
    }
}

/// Recorded inputs and results of a case.
#[derive(Debug, Default)]
pub(crate) struct Data {
    /// Inputs by name.
    pub(crate) inputs: BTreeMap<String, TensorData>,
    /// Results and state updates by name.
    pub(crate) expected: BTreeMap<String, TensorData>,
    /// Names of the inputs in order, if the case tells.
    pub(crate) input_order: Vec<String>,
    /// Names of the results in order, if the case tells.
    pub(crate) output_order: Vec<String>,
}

/// Reads inputs.npz and expected.npz, with the true names from names.json and the order from info.json where present.
pub(crate) fn read_data(dir: &Path) -> Result<Data, Box<djinn::diag::Diagnostic>> {
    let names = read_json(&dir.join("names.json"));
    let info = read_json(&dir.join("info.json"));
    let read = |file: &str, key: &str| -> djinn::diag::Result<BTreeMap<String, TensorData>> {
        let arrays = djinn::npz::read(&dir.join(file))?;
        let true_name = |k: String| names[key][&k].as_str().map_or(k.clone(), str::to_owned);
        Ok(arrays.into_iter().map(|(k, v)| (true_name(k), v)).collect())
    };
    let order = |key: &str| -> Vec<String> {
        let entries = info[key].as_array().cloned().unwrap_or_default();
        entries.iter().filter_map(|e| e["name"].as_str().map(str::to_owned)).collect()
    };
    Ok(Data {
        inputs: read("inputs.npz", "inputs")?,
        expected: read("expected.npz", "expected")?,
        input_order: order("inputs"),
        output_order: order("outputs"),
    })
}

/// A JSON file; null if it is absent or malformed (both files are optional).
fn read_json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::Null)
}

/// Which recorded array goes to which argument.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    /// Argument and key of the recorded array.
    pub(crate) pairs: Vec<(String, String)>,
    /// Recorded inputs that the function does not take (exporters drop unused ones).
    pub(crate) unused: Vec<String>,
}

impl Feeds {
    /// The arguments of an evaluation.
    pub(crate) fn values(&self, data: &Data) -> BTreeMap<String, TensorData> {
        let pair = |(a, k): &(String, String)| Some((a.clone(), data.inputs.get(k)?.clone()));
        self.pairs.iter().filter_map(pair).collect()
    }
}

/// Finds the recorded array of every argument: by name, by name up to punctuation, else by position.
pub(crate) fn feeds(f: &Function, data: &Data) -> Feeds {
    let mut out = Feeds::default();
    let needs_value = |k: &ArgumentKind| !matches!(k, ArgumentKind::State { initial: Some(_) });
    let positional: Vec<&str> =
        f.arguments.iter().filter(|(_, k)| needs_value(k)).map(|(n, _)| &**n).collect();
    for (name, _) in &f.arguments {
        let same = |key: &&String| same_name(key, name);
        let by_position = || {
            let at = positional.iter().position(|n| *n == &**name)?;
            let key = data.input_order.get(at).filter(|_| positional.len() == data.input_order.len())?;
            data.inputs.contains_key(key).then_some(key)
        };
        let by_name = data.inputs.get_key_value(&**name).map(|(k, _)| k);
        if let Some(key) = by_name.or_else(|| data.inputs.keys().find(same)).or_else(by_position) {
            out.pairs.push((name.to_string(), key.clone()));
        }
    }
    let used = |key: &String| out.pairs.iter().any(|(_, k)| k == key);
    out.unused = data.inputs.keys().filter(|k| !used(k)).cloned().collect();
    out
}

/// Are the names equal up to punctuation? (torch makes identifiers of names, ONNX does not.)
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    let plain =
        |s: &str| -> String { s.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect() };
    plain(a) == plain(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_up_to_punctuation() {
        assert!(same_name("past.0.key", "past_0_key"));
        assert!(!same_name("past.0.key", "past.1.key"));
    }

    #[test]
    fn unknown_formats_and_empty_folders_are_refused() {
        assert!(find(&[], &["tflite".into()]).is_err());
        let empty = std::env::temp_dir();
        assert!(find(&[empty.join("djinn-harness-no-such-folder")], &["onnx".into()]).is_err());
    }
}
