//! The weights of a bundle, as safetensors.

use super::failed;
use djinn_diag::{Result, input, unsupported};
use djinn_ir::data::Bytes;
use djinn_ir::{DType, Module, TensorData, Weight};
use safetensors::tensor::{Dtype, SafeTensors, View};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Writes the weights that have values to a file, but for those that are elsewhere; gives false, and writes nothing, if
/// there are none.
pub(super) fn write(module: &Module, elsewhere: &BTreeSet<Arc<str>>, path: &Path) -> Result<bool> {
    let weights = module.weights.iter().filter(|(name, _)| !elsewhere.contains(*name));
    let held: Vec<(&str, Stored<'_>)> =
        weights.filter_map(|(name, w)| Some((&**name, Stored(&w.data.as_ref()?.1)))).collect();
    if held.is_empty() {
        return Ok(false);
    }
    safetensors::serialize_to_file(held, None, path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(e) => failed(e),
        e => unsupported("bundle.weights", format!("the weights cannot be written: {e}")),
    })?;
    crate::write::make_readable(path).map_err(failed)?;
    Ok(true)
}

/// A tensor as safetensors sees it.
struct Stored<'a>(&'a TensorData);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        safetensors_dtype(self.0.dtype())
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.0.bytes())
    }
    fn data_len(&self) -> usize {
        self.0.bytes().len()
    }
}

fn safetensors_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::Bool => Dtype::BOOL,
        DType::I8 => Dtype::I8,
        DType::I16 => Dtype::I16,
        DType::I32 => Dtype::I32,
        DType::I64 => Dtype::I64,
        DType::U8 => Dtype::U8,
        DType::U16 => Dtype::U16,
        DType::U32 => Dtype::U32,
        DType::U64 => Dtype::U64,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
    }
}

/// Gives the module's weights their values.
pub(super) fn add(module: &mut Module, bytes: Bytes) -> Result<()> {
    let malformed = |e: String| input("bundle.weights", format!("the weights are malformed: {e}"));
    let slice = bytes.as_slice();
    let tensors = SafeTensors::deserialize(slice).map_err(|e| malformed(e.to_string()))?;
    for (name, tensor) in tensors.tensors() {
        let dtype = DType::ALL.into_iter().find(|d| safetensors_dtype(*d) == tensor.dtype());
        let dtype =
            dtype.ok_or_else(|| malformed(format!("'{name}' has a type that Djinn does not know")))?;
        let start = tensor.data().as_ptr() as usize - slice.as_ptr() as usize;
        let window = bytes
            .part(start, tensor.data().len())
            .ok_or_else(|| malformed(format!("'{name}' lies outside the file")))?;
        let data = TensorData::new(dtype, tensor.shape().to_vec(), window)
            .ok_or_else(|| malformed(format!("'{name}' has another size than its type")))?;
        insert(module, &name, data)?;
    }
    Ok(())
}

/// Gives a weight of the module its value.
pub(super) fn insert(module: &mut Module, name: &str, data: TensorData) -> Result<()> {
    let key: Arc<str> = Arc::from(name);
    let weight = Weight::with_data(data);
    let (hash, declared) = (weight.data.as_ref().map(|(h, _)| *h), module.weights.get(&key));
    if declared.is_some_and(|d| d.ty != weight.ty)
        || module.absent.get(&key).is_some_and(|h| Some(*h) != hash)
    {
        let message = format!("the weights are malformed: '{name}' is not the weight that the module names");
        return Err(input("bundle.weights", message));
    }
    module.absent.remove(&key);
    module.weights.insert(key, weight);
    Ok(())
}
