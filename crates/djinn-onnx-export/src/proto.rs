//! Small constructors of ONNX messages.

use djinn_ir::{DType, Dim, TensorType};
use djinn_onnx_proto as onnx;
use djinn_onnx_proto::{Bytes, attribute_type, data_type};

/// The ONNX number of an element type.
pub(crate) fn elem_type(dtype: DType) -> i32 {
    match dtype {
        DType::Bool => data_type::BOOL,
        DType::I8 => data_type::INT8,
        DType::I16 => data_type::INT16,
        DType::I32 => data_type::INT32,
        DType::I64 => data_type::INT64,
        DType::U8 => data_type::UINT8,
        DType::U16 => data_type::UINT16,
        DType::U32 => data_type::UINT32,
        DType::U64 => data_type::UINT64,
        DType::F16 => data_type::FLOAT16,
        DType::BF16 => data_type::BFLOAT16,
        DType::F32 => data_type::FLOAT,
        DType::F64 => data_type::DOUBLE,
    }
}

fn attribute(name: &str, r#type: i32) -> onnx::AttributeProto {
    onnx::AttributeProto { name: name.to_owned(), r#type, ..Default::default() }
}

/// An integer attribute.
pub(crate) fn int(name: &str, value: i64) -> onnx::AttributeProto {
    onnx::AttributeProto { i: Some(value), ..attribute(name, attribute_type::INT) }
}

/// A truth value as an integer attribute.
pub(crate) fn flag(name: &str, value: bool) -> onnx::AttributeProto {
    int(name, i64::from(value))
}

/// An attribute with a list of integers.
pub(crate) fn ints(name: &str, values: &[i64]) -> onnx::AttributeProto {
    onnx::AttributeProto { ints: values.to_vec(), ..attribute(name, attribute_type::INTS) }
}

/// A float attribute, rounded to the `f32` that ONNX stores.
pub(crate) fn float(name: &str, value: f64) -> onnx::AttributeProto {
    onnx::AttributeProto { f: Some(value as f32), ..attribute(name, attribute_type::FLOAT) }
}

/// A text attribute.
pub(crate) fn string(name: &str, value: &str) -> onnx::AttributeProto {
    let s = Some(Bytes::copy_from_slice(value.as_bytes()));
    onnx::AttributeProto { s, ..attribute(name, attribute_type::STRING) }
}

/// A subgraph attribute.
pub(crate) fn graph(name: &str, value: onnx::GraphProto) -> onnx::AttributeProto {
    onnx::AttributeProto { g: Some(Box::new(value)), ..attribute(name, attribute_type::GRAPH) }
}

/// A key with a value.
pub(crate) fn entry(key: impl Into<String>, value: impl Into<String>) -> onnx::StringStringEntryProto {
    onnx::StringStringEntryProto { key: key.into(), value: value.into() }
}

fn dimension(dim: &Dim) -> onnx::DimensionProto {
    use onnx::dimension_proto::Value;
    let value = match dim.as_const() {
        Some(c) => Value::DimValue(c),
        None => Value::DimParam(dim.to_string()),
    };
    onnx::DimensionProto { value: Some(value) }
}

/// Name and type of a graph input or output; symbolic sizes become `dim_param` texts.
pub(crate) fn value_info(name: &str, ty: &TensorType) -> onnx::ValueInfoProto {
    let shape = onnx::TensorShapeProto { dim: ty.shape.iter().map(dimension).collect() };
    let tensor = onnx::TensorTypeProto { elem_type: elem_type(ty.dtype), shape: Some(shape) };
    onnx::ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(onnx::TypeProto {
            value: Some(onnx::type_proto::Value::TensorType(tensor)),
            denotation: String::new(),
        }),
        ..Default::default()
    }
}
