//! Weights, buffers and constants: from payload windows to tensors.

use crate::archive::Archive;
use crate::schema::{PayloadConfig, PayloadMeta, SymInt, TensorMeta};
use djinn_diag::{Context, Result, input, unsupported};
use djinn_ir::data::numel;
use djinn_ir::{DType, TensorData, TensorType, Weight};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Bytes that a strided (non-contiguous) payload may grow by when it is copied out, beyond four times its own size.
const MAX_STRIDED_GROWTH: usize = 64 << 20;

/// The element type of a code of the schema.
///
/// # Errors
/// Types that the IR does not have are unsupported, unknown codes are input errors.
pub(crate) fn dtype(code: i64) -> Result<DType> {
    Ok(match code {
        1 => DType::U8,
        2 => DType::I8,
        3 => DType::I16,
        4 => DType::I32,
        5 => DType::I64,
        6 => DType::F16,
        7 => DType::F32,
        8 => DType::F64,
        12 => DType::Bool,
        13 => DType::BF16,
        28 => DType::U16,
        9..=11 => return Err(no_dtype("complex")),
        29..=32 => return Err(no_dtype("8-bit float")),
        _ => {
            return Err(input("pt2.dtype", format!("{code} is not the code of an element type"))
                .help("the file is damaged or newer than this importer: export it with torch 2.9 or later"));
        }
    })
}

fn no_dtype(what: &str) -> Box<djinn_diag::Diagnostic> {
    unsupported("pt2.dtype", format!("{what} tensors are not supported"))
        .help("export the model with integer, bool, f16, bf16, f32 or f64 tensors")
}

/// The payloads of one archive; without an archive every weight comes without value.
#[derive(Default)]
pub(crate) struct Payloads {
    archive: Option<Archive>,
    root: String,
    weights: BTreeMap<String, PayloadMeta>,
    constants: BTreeMap<String, PayloadMeta>,
    cache: RefCell<BTreeMap<Key, Weight>>,
}

/// Payload path, element type, sizes, strides and offset: equal keys are equal tensors.
type Key = (String, DType, Vec<usize>, Vec<usize>, usize);

impl Payloads {
    /// Reads the two configurations under `root` (which ends in a slash, or is empty).
    ///
    /// # Errors
    /// Malformed configurations.
    pub(crate) fn open(archive: Archive, root: &str) -> Result<Self> {
        let weights = config(&archive, &format!("{root}data/weights/model_weights_config.json"))?;
        let constants = config(&archive, &format!("{root}data/constants/model_constants_config.json"))?;
        Ok(Payloads {
            archive: Some(archive),
            root: root.to_string(),
            weights,
            constants,
            cache: RefCell::default(),
        })
    }

    /// The weight of this name, which the graph says has type `ty`.
    ///
    /// # Errors
    /// A missing entry, a payload that contradicts the graph or is too small, and pickled payloads.
    pub(crate) fn load(&self, name: &str, ty: &TensorType) -> Result<Weight> {
        self.load_unplaced(name, ty).at(|| format!("weight '{name}'"))
    }

    fn load_unplaced(&self, name: &str, ty: &TensorType) -> Result<Weight> {
        let Some(shape) = ty.const_shape() else {
            return Err(unsupported("pt2.weight", format!("has the symbolic type {ty}"))
                .help("export the model with weights of constant size"));
        };
        let Some(archive) = &self.archive else { return Ok(Weight { ty: ty.clone(), data: None }) };
        let (folder, meta) = match (self.weights.get(name), self.constants.get(name)) {
            (Some(m), _) => ("weights", m),
            (None, Some(m)) => ("constants", m),
            (None, None) => {
                return Err(input("pt2.weight", "is in neither payload configuration")
                    .help("the archive is incomplete: export the model again"));
            }
        };
        if meta.use_pickle {
            return Err(unsupported("pt2.weight", "is stored as a Python pickle, which is never executed")
                .help("export the model with torch 2.9 or later, and with plain tensors"));
        }
        let tensor = meta.tensor_meta.as_ref().ok_or_else(|| input("pt2.weight", "has no type"))?;
        let layout = Layout::new(tensor)?;
        if layout.dtype != ty.dtype || layout.shape != shape {
            let found = TensorType::new(layout.dtype, layout.shape.iter().map(|d| (*d).into()));
            return Err(input("pt2.weight", format!("is {found} in the payload, but {ty} in the graph"))
                .help("the archive is inconsistent: export the model again"));
        }
        if meta.path_name.contains(['/', '\\']) || meta.path_name.starts_with('.') {
            return Err(input("pt2.weight", format!("has the payload path '{}'", meta.path_name))
                .help("the archive is damaged: export the model again"));
        }
        let path = format!("{}data/{folder}/{}", self.root, meta.path_name);
        let key = (path.clone(), layout.dtype, layout.shape.clone(), layout.strides.clone(), layout.offset);
        if let Some(known) = self.cache.borrow().get(&key) {
            return Ok(known.clone());
        }
        let weight = match layout.read(archive, &path)? {
            Some(data) => Weight::with_data(data),
            None => Weight { ty: ty.clone(), data: None },
        };
        self.cache.borrow_mut().insert(key, weight.clone());
        Ok(weight)
    }
}

fn config(archive: &Archive, path: &str) -> Result<BTreeMap<String, PayloadMeta>> {
    let Some(text) = archive.text(path)? else { return Ok(BTreeMap::new()) };
    let config: PayloadConfig = serde_json::from_slice(text.as_slice()).map_err(|e| {
        input("pt2.json", format!("malformed: {e}"))
            .help("the archive is damaged: export the model again")
            .at(path)
    })?;
    Ok(config.config)
}

/// How a tensor lies in its storage, in elements.
struct Layout {
    dtype: DType,
    shape: Vec<usize>,
    strides: Vec<usize>,
    offset: usize,
}

fn constant(d: &SymInt) -> Result<usize> {
    match d {
        SymInt::Int(v) => usize::try_from(*v).ok(),
        SymInt::Expr(_) => None,
    }
    .ok_or_else(|| input("pt2.weight", "has a size, stride or offset that is not a non-negative constant"))
}

impl Layout {
    fn new(meta: &TensorMeta) -> Result<Self> {
        let shape: Vec<usize> = meta.sizes.iter().map(constant).collect::<Result<_>>()?;
        let strides: Vec<usize> = meta.strides.iter().map(constant).collect::<Result<_>>()?;
        if meta.layout.is_some_and(|l| l != 7) {
            return Err(unsupported("pt2.weight", "is not a strided tensor").help("export dense tensors"));
        }
        if strides.len() != shape.len() {
            return Err(input(
                "pt2.weight",
                format!("has {} sizes but {} strides", shape.len(), strides.len()),
            ));
        }
        Ok(Layout { dtype: dtype(meta.dtype)?, shape, strides, offset: constant(&meta.storage_offset)? })
    }

    fn is_contiguous(&self) -> bool {
        let mut want = 1usize;
        for (size, stride) in self.shape.iter().zip(&self.strides).rev() {
            if *size != 1 && *stride != want {
                return false;
            }
            want = want.saturating_mul(*size);
        }
        true
    }

    /// Number of elements of storage that the tensor reaches, counted from the start; `None` on overflow.
    fn reach(&self) -> Option<usize> {
        let spans = self.shape.iter().zip(&self.strides).map(|(n, s)| n.checked_sub(1)?.checked_mul(*s));
        spans.fold(self.offset.checked_add(1), |sum, span| sum?.checked_add(span?))
    }

    /// The tensor in the payload at `path`; `None` if the payload is left out or empty.
    fn read(&self, archive: &Archive, path: &str) -> Result<Option<TensorData>> {
        let too_big = || input("pt2.weight", "has more elements than can be addressed");
        let size = self.dtype.size();
        let len = numel(&self.shape).and_then(|n| n.checked_mul(size)).ok_or_else(too_big)?;
        if len == 0 {
            return Ok(TensorData::new(self.dtype, self.shape.clone(), Vec::new()));
        }
        let Some(storage) = archive.window(path).filter(|w| !w.as_slice().is_empty()) else {
            return Ok(None);
        };
        let storage = storage.as_slice();
        let reach = self.reach().and_then(|n| n.checked_mul(size)).ok_or_else(too_big)?;
        if reach > storage.len() {
            let message = format!("reaches to byte {reach} of a payload of {} bytes", storage.len());
            return Err(input("pt2.weight", message).help("the archive is damaged: export or copy it again"));
        }
        if self.is_contiguous() {
            let window = archive.sub_window(path, self.offset * size, len).ok_or_else(too_big)?;
            return Ok(TensorData::new(self.dtype, self.shape.clone(), window));
        }
        if len > storage.len().saturating_mul(4).saturating_add(MAX_STRIDED_GROWTH) {
            return Err(unsupported("pt2.weight", format!("expands {} bytes to {len}", storage.len()))
                .help("make the weight contiguous before exporting"));
        }
        Ok(TensorData::new(self.dtype, self.shape.clone(), self.gather(storage, len)))
    }

    fn gather(&self, storage: &[u8], len: usize) -> Vec<u8> {
        let size = self.dtype.size();
        let mut out = Vec::with_capacity(len);
        let mut index = vec![0usize; self.shape.len()];
        while out.len() < len {
            let at: usize = self.offset + index.iter().zip(&self.strides).map(|(i, s)| i * s).sum::<usize>();
            out.extend_from_slice(&storage[at * size..(at + 1) * size]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::tests::zip;
    use std::sync::Arc;

    fn payloads(sizes: &str, strides: &str, offset: i64, bytes: &[u8]) -> Payloads {
        let meta = format!(
            r#"{{"config": {{"w": {{"path_name": "weight_0", "is_param": true, "use_pickle": false, "tensor_meta":
            {{"dtype": 1, "sizes": {sizes}, "requires_grad": false, "device": {{"type": "cpu"}},
            "strides": {strides}, "storage_offset": {{"as_int": {offset}}}, "layout": 7}}}}}}}}"#
        );
        let bytes = zip(&[
            ("data/weights/model_weights_config.json", meta.as_bytes()),
            ("data/weights/weight_0", bytes),
        ]);
        let archive = Archive::open(Arc::new(bytes)).expect("archive");
        Payloads::open(archive, "").expect("configuration")
    }

    const S22: &str = r#"[{"as_int": 2}, {"as_int": 2}]"#;

    #[test]
    fn strides_and_offsets_apply() {
        let ty = TensorType::of(DType::U8, &[2, 2]);
        let plain = payloads(S22, r#"[{"as_int": 2}, {"as_int": 1}]"#, 1, &[9, 1, 2, 3, 4]);
        let data = plain.load("w", &ty).expect("weight").data.expect("value");
        assert_eq!(data.1.bytes(), [1, 2, 3, 4]);
        let turned = payloads(S22, r#"[{"as_int": 1}, {"as_int": 2}]"#, 0, &[1, 2, 3, 4]);
        assert_eq!(turned.load("w", &ty).expect("weight").data.expect("value").1.bytes(), [1, 3, 2, 4]);
        let absent = payloads(S22, r#"[{"as_int": 2}, {"as_int": 1}]"#, 0, &[]);
        assert!(absent.load("w", &ty).expect("weight").data.is_none());
    }

    #[test]
    fn bad_payloads_are_refused() {
        let ty = TensorType::of(DType::U8, &[2, 2]);
        let code = |p: Payloads, ty: &TensorType| p.load("w", ty).map(|_| ()).map_err(|e| e.message);
        let strides = r#"[{"as_int": 2}, {"as_int": 1}]"#;
        assert!(code(payloads(S22, strides, 1, &[1, 2, 3, 4]), &ty).is_err_and(|m| m.contains("byte 5")));
        assert!(code(payloads(S22, "[]", 0, &[1]), &ty).is_err_and(|m| m.contains("strides")));
        assert!(code(payloads(S22, strides, -1, &[1]), &ty).is_err_and(|m| m.contains("non-negative")));
        assert!(code(payloads(S22, strides, 0, &[1]), &TensorType::of(DType::U8, &[4])).is_err());
        let huge = r#"[{"as_int": 4611686018427387904}, {"as_int": 4}]"#;
        let ty = TensorType::of(DType::U8, &[1 << 62, 4]);
        assert!(code(payloads(huge, r#"[{"as_int": 0}, {"as_int": 0}]"#, 0, &[1]), &ty).is_err());
        let wide = r#"[{"as_int": 1073741824}, {"as_int": 4}]"#;
        let ty = TensorType::of(DType::U8, &[1 << 30, 4]);
        assert!(
            code(payloads(wide, r#"[{"as_int": 0}, {"as_int": 0}]"#, 0, &[1]), &ty)
                .is_err_and(|m| m.contains("expands"))
        );
    }
}
