//! Typed, named attributes of operations.

use crate::data::TensorData;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::types::TensorType;
use std::borrow::Cow;
use std::sync::Arc;

/// A float compared and hashed by its bits, so that NaN equals itself and −0 differs from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FloatBits(u64);

impl FloatBits {
    /// The value.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl From<f64> for FloatBits {
    fn from(v: f64) -> Self {
        FloatBits(v.to_bits())
    }
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attr {
    /// An integer.
    Int(i64),
    /// A float.
    Float(FloatBits),
    /// A truth value.
    Bool(bool),
    /// Text, or one word out of the list that the op table gives.
    Str(Arc<str>),
    /// Integers.
    Ints(Vec<i64>),
    /// Floats.
    Floats(Vec<FloatBits>),
    /// A symbolic size or position.
    Dim(Dim),
    /// Symbolic sizes or positions.
    Dims(Vec<Dim>),
    /// An element type.
    DType(DType),
    /// Tensor types.
    Types(Vec<TensorType>),
    /// A constant tensor, printed whole in the text form.
    Tensor(TensorData),
}

/// Which [`Attr`] variant an attribute must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttrKind {
    /// [`Attr::Int`].
    Int,
    /// [`Attr::Float`].
    Float,
    /// [`Attr::Bool`].
    Bool,
    /// [`Attr::Str`], any text.
    Str,
    /// [`Attr::Str`], one of these words.
    Word(&'static [&'static str]),
    /// [`Attr::Ints`].
    Ints,
    /// [`Attr::Floats`].
    Floats,
    /// [`Attr::Dim`].
    Dim,
    /// [`Attr::Dims`].
    Dims,
    /// [`Attr::DType`].
    DType,
    /// [`Attr::Types`].
    Types,
    /// [`Attr::Tensor`].
    Tensor,
}

impl AttrKind {
    /// Does `attr` have this kind?
    pub fn accepts(self, attr: &Attr) -> bool {
        match (self, attr) {
            (AttrKind::Int, Attr::Int(_))
            | (AttrKind::Float, Attr::Float(_))
            | (AttrKind::Bool, Attr::Bool(_))
            | (AttrKind::Str, Attr::Str(_))
            | (AttrKind::Ints, Attr::Ints(_))
            | (AttrKind::Floats, Attr::Floats(_))
            | (AttrKind::Dim, Attr::Dim(_))
            | (AttrKind::Dims, Attr::Dims(_))
            | (AttrKind::DType, Attr::DType(_))
            | (AttrKind::Types, Attr::Types(_))
            | (AttrKind::Tensor, Attr::Tensor(_)) => true,
            (AttrKind::Word(words), Attr::Str(s)) => words.contains(&&**s),
            _ => false,
        }
    }
}

macro_rules! attr_from {
    ($($ty:ty => |$v:ident| $make:expr;)*) => {$(
        impl From<$ty> for Attr {
            fn from($v: $ty) -> Attr {
                $make
            }
        }
    )*};
}

attr_from! {
    i64 => |v| Attr::Int(v);
    f64 => |v| Attr::Float(v.into());
    bool => |v| Attr::Bool(v);
    &str => |v| Attr::Str(Arc::from(v));
    String => |v| Attr::Str(Arc::from(v));
    Vec<i64> => |v| Attr::Ints(v);
    Vec<f64> => |v| Attr::Floats(v.into_iter().map(FloatBits::from).collect());
    Dim => |v| Attr::Dim(v);
    Vec<Dim> => |v| Attr::Dims(v);
    DType => |v| Attr::DType(v);
    Vec<TensorType> => |v| Attr::Types(v);
    TensorData => |v| Attr::Tensor(v);
}

/// The attributes of one operation, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Attrs(Vec<(Cow<'static, str>, Attr)>);

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Attrs::default()
    }

    /// These attributes plus one more; an earlier one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Attr>) -> Self {
        self.set(name, value);
        self
    }

    /// Sets one attribute.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Attr>) {
        let name = name.into();
        match self.0.binary_search_by(|(n, _)| n.cmp(&name)) {
            Ok(i) => self.0[i].1 = value.into(),
            Err(i) => self.0.insert(i, (name, value.into())),
        }
    }

    /// The attribute of this name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok().map(|i| &self.0[i].1)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attr)> {
        self.0.iter().map(|(n, a)| (n.as_ref(), a))
    }

    /// Values, sorted by name.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Attr> {
        self.0.iter_mut().map(|(_, a)| a)
    }

    /// Number of attributes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The integer `name`. The verifier guarantees presence and kind, so a wrong name reads as 0.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => 0,
        }
    }

    /// The float `name`; 0 if absent (see [`Attrs::int`]).
    pub fn float(&self, name: &str) -> f64 {
        match self.get(name) {
            Some(Attr::Float(v)) => v.get(),
            _ => 0.0,
        }
    }

    /// The truth value `name`; false if absent.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Attr::Bool(true)))
    }

    /// The text `name`; empty if absent.
    pub fn str(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Attr::Str(v)) => v,
            _ => "",
        }
    }

    /// The integers `name`; empty if absent.
    pub fn ints(&self, name: &str) -> &[i64] {
        match self.get(name) {
            Some(Attr::Ints(v)) => v,
            _ => &[],
        }
    }

    /// The floats `name`; empty if absent.
    pub fn floats(&self, name: &str) -> Vec<f64> {
        match self.get(name) {
            Some(Attr::Floats(v)) => v.iter().map(|b| b.get()).collect(),
            _ => Vec::new(),
        }
    }

    /// The symbolic size `name`; 0 if absent.
    pub fn dim(&self, name: &str) -> Dim {
        match self.get(name) {
            Some(Attr::Dim(v)) => v.clone(),
            _ => Dim::ZERO,
        }
    }

    /// The symbolic sizes `name`; empty if absent.
    pub fn dims(&self, name: &str) -> &[Dim] {
        match self.get(name) {
            Some(Attr::Dims(v)) => v,
            _ => &[],
        }
    }

    /// The element type `name`.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        match self.get(name) {
            Some(Attr::DType(v)) => Some(*v),
            _ => None,
        }
    }

    /// The tensor types `name`; empty if absent.
    pub fn types(&self, name: &str) -> &[TensorType] {
        match self.get(name) {
            Some(Attr::Types(v)) => v,
            _ => &[],
        }
    }

    /// The constant tensor `name`.
    pub fn tensor(&self, name: &str) -> Option<&TensorData> {
        match self.get(name) {
            Some(Attr::Tensor(v)) => Some(v),
            _ => None,
        }
    }
}

/// Builds [`Attrs`]: `attrs! { axis: 1i64, keepdims: true }`.
#[macro_export]
macro_rules! attrs {
    ($($name:ident : $value:expr),* $(,)?) => {
        $crate::Attrs::new()$(.with(stringify!($name), $value))*
    };
}
