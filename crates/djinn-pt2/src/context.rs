//! What the operator table works with: the builder, the environments, and typed access to a call's arguments.

use crate::env::{RootOrigin, Slot, SlotId};
use crate::schema::{
    Argument, BoolOrName, FloatOrName, Graph, IntOrName, Name, Node, OptionalTensor, SymInt,
};
use crate::weights::Payloads;
use crate::{ImportReport, sympy, weights};
use djinn_diag::{Context, Result, input, internal, unsupported};
use djinn_ir::types::normalize_axis;
use djinn_ir::{DType, Dim, SymbolTable, TensorType, Weight};
use djinn_srg::{SrgBuilder, SrgValue};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A number that is not a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Scalar {
    /// An integer or size.
    Int(Dim),
    /// A float.
    Float(f64),
    /// A truth value.
    Bool(bool),
}

/// A tensor or a number.
#[derive(Debug, Clone)]
pub(crate) enum Operand {
    /// A tensor.
    Tensor(SrgValue),
    /// A number.
    Scalar(Scalar),
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Binding {
    /// A tensor.
    Tensor(SlotId),
    /// A number.
    Scalar(Scalar),
}

/// What an operator gives.
#[derive(Debug)]
pub(crate) enum Ret {
    /// A fresh tensor.
    Value(SrgValue),
    /// Fresh tensors; `None` for one that nobody uses.
    Values(Vec<Option<SrgValue>>),
    /// A tensor that shares storage with an operand, or is the operand.
    Slot(SlotId),
    /// Several of these.
    Slots(Vec<SlotId>),
    /// A number.
    Scalar(Scalar),
}

/// Names and slots of one graph.
pub(crate) struct Env<'p> {
    pub(crate) graph: &'p Graph,
    pub(crate) names: HashMap<&'p str, Binding>,
    pub(crate) slots: Vec<Slot>,
    /// Names that some node or output uses.
    pub(crate) used: BTreeSet<&'p str>,
}

/// A parameter, buffer or constant of the program.
pub(crate) struct Lifted {
    pub(crate) name: String,
    pub(crate) ty: TensorType,
    pub(crate) is_constant: bool,
}

/// The state of one import.
pub(crate) struct Cx<'p> {
    pub(crate) b: SrgBuilder,
    pub(crate) envs: Vec<Env<'p>>,
    pub(crate) lifted: Vec<Lifted>,
    pub(crate) payloads: &'p Payloads,
    pub(crate) report: ImportReport,
    pub(crate) exprs: HashMap<&'p str, Dim>,
    pub(crate) symbols: SymbolTable,
    pub(crate) scopes: BTreeMap<String, std::sync::Arc<str>>,
}

/// One call under translation.
#[derive(Clone, Copy)]
pub(crate) struct Call<'p> {
    pub(crate) node: &'p Node,
    /// The operator without namespace and overload.
    pub(crate) base: &'p str,
    /// The overload.
    pub(crate) overload: &'p str,
}

impl<'p> Call<'p> {
    /// The argument of this name, unless it is absent or `None`.
    pub(crate) fn arg(&self, name: &str) -> Option<&'p Argument> {
        let found = self.node.inputs.iter().find(|a| a.name == name)?;
        let none = matches!(found.arg, Argument::None(_) | Argument::OptionalTensor(OptionalTensor::None(_)));
        (!none).then_some(&found.arg)
    }

    /// A diagnostic about an argument that is missing or of the wrong kind.
    pub(crate) fn bad(&self, name: &str, want: &str) -> Box<djinn_diag::Diagnostic> {
        input("pt2.argument", format!("the argument '{name}' of {} is not {want}", self.base))
            .help("the file is damaged or written by an unknown exporter: export the model again")
    }

    /// A diagnostic about a valid use that has no translation.
    pub(crate) fn unsupported(&self, what: impl Into<String>) -> Box<djinn_diag::Diagnostic> {
        unsupported("pt2.operator", format!("{}.{}: {}", self.base, self.overload, what.into()))
            .help("rewrite this part of the model, or ask for support with the model file")
    }

    /// A truth value.
    pub(crate) fn bool_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.arg(name) {
            None => Ok(default),
            Some(Argument::Bool(v)) => Ok(*v),
            Some(Argument::SymBool(BoolOrName::Bool(v))) => Ok(*v),
            Some(_) => Err(self.bad(name, "a truth value")),
        }
    }

    /// Text.
    pub(crate) fn str_or(&self, name: &str, default: &'p str) -> Result<&'p str> {
        match self.arg(name) {
            None => Ok(default),
            Some(Argument::Str(v)) => Ok(v),
            Some(_) => Err(self.bad(name, "text")),
        }
    }

    /// An element type.
    pub(crate) fn dtype(&self, name: &str) -> Result<Option<DType>> {
        match self.arg(name) {
            None => Ok(None),
            Some(Argument::ScalarType(code)) => weights::dtype(*code).map(Some),
            Some(_) => Err(self.bad(name, "an element type")),
        }
    }

    /// Floats.
    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f64>>> {
        match self.arg(name) {
            None => Ok(None),
            Some(Argument::Floats(v)) => Ok(Some(v.iter().map(|f| f.0).collect())),
            Some(Argument::Ints(v)) => Ok(Some(v.iter().map(|i| *i as f64).collect())),
            Some(_) => Err(self.bad(name, "a list of floats")),
        }
    }
}

impl<'p> Cx<'p> {
    pub(crate) fn env(&self) -> &Env<'p> {
        // An import always has the program's environment at the bottom.
        &self.envs[self.envs.len() - 1]
    }

    pub(crate) fn env_mut(&mut self) -> &mut Env<'p> {
        let last = self.envs.len() - 1;
        &mut self.envs[last]
    }

    /// Gives a name its meaning.
    ///
    /// # Errors
    /// If the name is taken.
    pub(crate) fn bind(&mut self, name: &'p str, binding: Binding) -> Result<()> {
        match self.env_mut().names.insert(name, binding) {
            None => Ok(()),
            Some(_) => Err(input("pt2.name", format!("the name '{name}' is defined twice"))
                .help("the file is damaged: export the model again")),
        }
    }

    fn lookup(&self, name: &str) -> Result<&Binding> {
        self.env().names.get(name).ok_or_else(|| {
            input("pt2.name", format!("the name '{name}' is used but not defined before"))
                .help("the file is damaged: export the model again")
        })
    }

    /// The slot of a name.
    pub(crate) fn slot_named(&self, name: &str) -> Result<SlotId> {
        match self.lookup(name)? {
            Binding::Tensor(slot) => Ok(*slot),
            Binding::Scalar(_) => Err(input("pt2.name", format!("'{name}' is a number, not a tensor"))
                .help("the file is damaged: export the model again")),
        }
    }

    /// The number of a name.
    pub(crate) fn scalar_named(&self, name: &str) -> Result<Scalar> {
        match self.lookup(name)? {
            Binding::Scalar(s) => Ok(s.clone()),
            Binding::Tensor(_) => Err(input("pt2.name", format!("'{name}' is a tensor, not a number"))
                .help("the file is damaged: export the model again")),
        }
    }

    /// The current value of a name.
    pub(crate) fn value_named(&mut self, name: &str) -> Result<SrgValue> {
        let slot = self.slot_named(name)?;
        self.read(slot)
    }

    /// A size as an IR dimension.
    pub(crate) fn sym(&mut self, size: &'p SymInt) -> Result<Dim> {
        match size {
            SymInt::Int(v) => Ok(Dim::from(*v)),
            SymInt::Expr(e) => {
                if let Some(d) = self.exprs.get(e.expr_str.as_str()) {
                    return Ok(d.clone());
                }
                let d = sympy::parse(&e.expr_str)?;
                self.exprs.insert(&e.expr_str, d.clone());
                Ok(d)
            }
        }
    }

    /// The type that the file records for a name; `None` if it records none.
    pub(crate) fn recorded(&mut self, name: &str) -> Result<Option<TensorType>> {
        let Some(meta) = self.env().graph.tensor_values.get(name) else { return Ok(None) };
        let place = || format!("tensor '{name}'");
        let dtype = weights::dtype(meta.dtype).at(place)?;
        let mut shape = Vec::with_capacity(meta.sizes.len());
        for size in &meta.sizes {
            let d = self.sym(size).at(place)?;
            if d.as_const().is_some_and(|c| c < 0) {
                return Err(input("pt2.type", format!("has the negative size {d}")).at(place()));
            }
            shape.push(d);
        }
        let ty = TensorType::new(dtype, shape);
        if ty.numel().is_overflow() {
            return Err(input("pt2.type", "has more elements than can be counted").at(place()));
        }
        Ok(Some(ty))
    }

    /// The recorded strides of a name.
    pub(crate) fn strides(&mut self, name: &str) -> Result<Option<Vec<Dim>>> {
        let Some(meta) = self.env().graph.tensor_values.get(name) else { return Ok(None) };
        let mut out = Vec::with_capacity(meta.strides.len());
        for s in &meta.strides {
            out.push(self.sym(s)?);
        }
        Ok(Some(out))
    }

    /// The `weight` or `constant` operation of lifted value `number`.
    pub(crate) fn lifted_value(&mut self, number: usize) -> Result<SrgValue> {
        let lifted =
            self.lifted.get(number).ok_or_else(|| internal("pt2.lifted", "a lifted value has no entry"))?;
        let (name, ty, is_constant) = (lifted.name.clone(), lifted.ty.clone(), lifted.is_constant);
        let weight: Weight = self.payloads.load(&name, &ty)?;
        if let Some((_, data)) = weight.data.as_ref().filter(|_| is_constant) {
            const LISTED: usize = 256;
            let small = data.shape().is_empty()
                || data.numel() == 0
                || (!data.dtype().is_float() && data.numel() <= LISTED);
            if small {
                return self.b.constant(data.clone());
            }
        }
        self.b.weight(&name, weight)
    }

    // ---- arguments of a call

    /// Name of the tensor that an argument refers to.
    pub(crate) fn tensor_name(&self, call: &Call<'p>, name: &str) -> Result<Option<&'p str>> {
        match call.arg(name) {
            None => Ok(None),
            Some(Argument::Tensor(n) | Argument::OptionalTensor(OptionalTensor::Tensor(n))) => {
                Ok(Some(&n.name))
            }
            Some(_) => Err(call.bad(name, "a tensor")),
        }
    }

    /// Slot of a tensor argument.
    pub(crate) fn slot(&self, call: &Call<'p>, name: &str) -> Result<SlotId> {
        let found = self.tensor_name(call, name)?.ok_or_else(|| call.bad(name, "a tensor"))?;
        self.slot_named(found)
    }

    /// Value of a tensor argument.
    pub(crate) fn tensor(&mut self, call: &Call<'p>, name: &str) -> Result<SrgValue> {
        let slot = self.slot(call, name)?;
        self.read(slot)
    }

    /// Value of an optional tensor argument.
    pub(crate) fn tensor_opt(&mut self, call: &Call<'p>, name: &str) -> Result<Option<SrgValue>> {
        match self.tensor_name(call, name)? {
            None => Ok(None),
            Some(n) => self.value_named(n).map(Some),
        }
    }

    /// Values of a list of tensors.
    pub(crate) fn tensors(&mut self, call: &Call<'p>, name: &str) -> Result<Vec<SrgValue>> {
        match call.arg(name) {
            Some(Argument::Tensors(list)) => list.iter().map(|n: &Name| self.value_named(&n.name)).collect(),
            _ => Err(call.bad(name, "a list of tensors")),
        }
    }

    /// Values of a list of optional tensors.
    pub(crate) fn opt_tensors(&mut self, call: &Call<'p>, name: &str) -> Result<Vec<Option<SrgValue>>> {
        match call.arg(name) {
            Some(Argument::Tensors(list)) => {
                list.iter().map(|n| self.value_named(&n.name).map(Some)).collect()
            }
            Some(Argument::OptionalTensors(list)) => list
                .iter()
                .map(|t| match t {
                    OptionalTensor::Tensor(n) => self.value_named(&n.name).map(Some),
                    OptionalTensor::None(_) => Ok(None),
                })
                .collect(),
            _ => Err(call.bad(name, "a list of optional tensors")),
        }
    }

    fn int_or_name(&self, v: &IntOrName) -> Result<Dim> {
        match v {
            IntOrName::Int(i) => Ok(Dim::from(*i)),
            IntOrName::Name(n) => match self.scalar_named(n)? {
                Scalar::Int(d) => Ok(d),
                Scalar::Float(_) | Scalar::Bool(_) => {
                    Err(input("pt2.name", format!("'{n}' is not an integer")))
                }
            },
        }
    }

    /// The number in an argument; `None` for arguments that are not numbers.
    pub(crate) fn scalar_of(&self, arg: &Argument) -> Result<Option<Scalar>> {
        Ok(Some(match arg {
            Argument::Int(v) => Scalar::Int(Dim::from(*v)),
            Argument::Float(v) => Scalar::Float(v.0),
            Argument::Bool(v) => Scalar::Bool(*v),
            Argument::SymInt(v) => Scalar::Int(self.int_or_name(v)?),
            Argument::SymFloat(FloatOrName::Float(v)) => Scalar::Float(v.0),
            Argument::SymBool(BoolOrName::Bool(v)) => Scalar::Bool(*v),
            Argument::SymFloat(FloatOrName::Name(n)) | Argument::SymBool(BoolOrName::Name(n)) => {
                self.scalar_named(n)?
            }
            Argument::Tensor(n) if matches!(self.lookup(&n.name)?, Binding::Scalar(_)) => {
                self.scalar_named(&n.name)?
            }
            _ => return Ok(None),
        }))
    }

    /// A number.
    pub(crate) fn scalar_opt(&self, call: &Call<'p>, name: &str) -> Result<Option<Scalar>> {
        match call.arg(name) {
            None => Ok(None),
            Some(arg) => self.scalar_of(arg)?.map(Some).ok_or_else(|| call.bad(name, "a number")),
        }
    }

    /// A number.
    pub(crate) fn scalar(&self, call: &Call<'p>, name: &str) -> Result<Scalar> {
        self.scalar_opt(call, name)?.ok_or_else(|| call.bad(name, "a number"))
    }

    /// A tensor or a number.
    pub(crate) fn operand(&mut self, call: &Call<'p>, name: &str) -> Result<Operand> {
        self.operand_opt(call, name)?.ok_or_else(|| call.bad(name, "a tensor or a number"))
    }

    /// A tensor or a number, or nothing.
    pub(crate) fn operand_opt(&mut self, call: &Call<'p>, name: &str) -> Result<Option<Operand>> {
        let Some(arg) = call.arg(name) else { return Ok(None) };
        if let Some(s) = self.scalar_of(arg)? {
            return Ok(Some(Operand::Scalar(s)));
        }
        self.tensor(call, name).map(|v| Some(Operand::Tensor(v)))
    }

    /// A size.
    pub(crate) fn dim_opt(&self, call: &Call<'p>, name: &str) -> Result<Option<Dim>> {
        match self.scalar_opt(call, name)? {
            None => Ok(None),
            Some(Scalar::Int(d)) => Ok(Some(d)),
            Some(Scalar::Float(_) | Scalar::Bool(_)) => Err(call.bad(name, "an integer")),
        }
    }

    /// A size.
    pub(crate) fn dim(&self, call: &Call<'p>, name: &str) -> Result<Dim> {
        self.dim_opt(call, name)?.ok_or_else(|| call.bad(name, "an integer"))
    }

    /// A constant integer.
    pub(crate) fn int(&self, call: &Call<'p>, name: &str) -> Result<i64> {
        self.dim(call, name)?.as_const().ok_or_else(|| call.unsupported(format!("'{name}' is symbolic")))
    }

    /// A constant integer.
    pub(crate) fn int_or(&self, call: &Call<'p>, name: &str, default: i64) -> Result<i64> {
        if call.arg(name).is_none() { Ok(default) } else { self.int(call, name) }
    }

    /// Sizes; one number counts as a list of one.
    pub(crate) fn dims_opt(&self, call: &Call<'p>, name: &str) -> Result<Option<Vec<Dim>>> {
        match call.arg(name) {
            None => Ok(None),
            Some(Argument::Ints(v)) => Ok(Some(v.iter().map(|i| Dim::from(*i)).collect())),
            Some(Argument::SymInts(v)) => {
                v.iter().map(|i| self.int_or_name(i)).collect::<Result<_>>().map(Some)
            }
            Some(Argument::Int(_) | Argument::SymInt(_)) => Ok(Some(vec![self.dim(call, name)?])),
            // An empty list has no kind of its own.
            Some(Argument::Tensors(v)) if v.is_empty() => Ok(Some(Vec::new())),
            Some(_) => Err(call.bad(name, "a list of integers")),
        }
    }

    /// Sizes.
    pub(crate) fn dims(&self, call: &Call<'p>, name: &str) -> Result<Vec<Dim>> {
        self.dims_opt(call, name)?.ok_or_else(|| call.bad(name, "a list of integers"))
    }

    /// Constant integers.
    pub(crate) fn ints_opt(&self, call: &Call<'p>, name: &str) -> Result<Option<Vec<i64>>> {
        let Some(dims) = self.dims_opt(call, name)? else { return Ok(None) };
        let ints: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
        ints.map(Some).ok_or_else(|| call.unsupported(format!("'{name}' is symbolic")))
    }

    /// Constant integers.
    pub(crate) fn ints(&self, call: &Call<'p>, name: &str) -> Result<Vec<i64>> {
        self.ints_opt(call, name)?.ok_or_else(|| call.bad(name, "a list of integers"))
    }

    /// A constant float.
    pub(crate) fn float_opt(&self, call: &Call<'p>, name: &str) -> Result<Option<f64>> {
        Ok(match self.scalar_opt(call, name)? {
            None => None,
            Some(Scalar::Float(v)) => Some(v),
            Some(Scalar::Bool(v)) => Some(f64::from(u8::from(v))),
            Some(Scalar::Int(d)) => {
                let v = d.as_const().ok_or_else(|| call.unsupported(format!("'{name}' is symbolic")))?;
                Some(v as f64)
            }
        })
    }

    /// A constant float.
    pub(crate) fn float_or(&self, call: &Call<'p>, name: &str, default: f64) -> Result<f64> {
        Ok(self.float_opt(call, name)?.unwrap_or(default))
    }

    /// An axis of a tensor of this rank (of rank 1, for a scalar), from an integer argument.
    pub(crate) fn axis(&self, call: &Call<'p>, name: &str, rank: usize) -> Result<usize> {
        normalize_axis(self.int(call, name)?, rank.max(1)).ok_or_else(|| axis_error(call, name, rank))
    }

    /// Like [`Cx::axis`], with a default.
    pub(crate) fn axis_or(&self, call: &Call<'p>, name: &str, rank: usize, default: i64) -> Result<usize> {
        let axis = self.int_or(call, name, default)?;
        normalize_axis(axis, rank.max(1)).ok_or_else(|| axis_error(call, name, rank))
    }

    /// Sorted distinct axes; all of them if the argument is absent or empty.
    pub(crate) fn axes(&self, call: &Call<'p>, name: &str, rank: usize) -> Result<Vec<i64>> {
        let given = self.ints_opt(call, name)?.unwrap_or_default();
        if given.is_empty() {
            return Ok((0..rank as i64).collect());
        }
        let mut axes = Vec::with_capacity(given.len());
        for a in given {
            let axis = normalize_axis(a, rank.max(1)).ok_or_else(|| axis_error(call, name, rank))?;
            if axis < rank {
                axes.push(axis as i64);
            }
        }
        axes.sort_unstable();
        axes.dedup();
        Ok(axes)
    }

    /// Names that this call gives to tensor results, in order.
    pub(crate) fn output_names(&self, call: &Call<'p>) -> Vec<&'p str> {
        let mut names = Vec::new();
        for out in &call.node.outputs {
            match out {
                Argument::Tensor(n) | Argument::OptionalTensor(OptionalTensor::Tensor(n)) => {
                    names.push(n.name.as_str())
                }
                Argument::Tensors(list) => names.extend(list.iter().map(|n| n.name.as_str())),
                _ => {}
            }
        }
        names
    }

    /// Is the call's tensor result number `i` used?
    pub(crate) fn is_used(&self, call: &Call<'p>, i: usize) -> bool {
        self.output_names(call).get(i).is_some_and(|n| self.env().used.contains(n))
    }

    /// The recorded type of the call's first tensor result.
    pub(crate) fn recorded_result(&mut self, call: &Call<'p>) -> Result<Option<TensorType>> {
        match self.output_names(call).first() {
            Some(name) => self.recorded(name),
            None => Ok(None),
        }
    }

    /// Binds a lifted value as an unread root.
    pub(crate) fn bind_lifted(&mut self, name: &'p str, number: usize) -> Result<()> {
        let slot = self.root_of(None, RootOrigin::Lifted(number));
        self.bind(name, Binding::Tensor(slot))
    }
}

fn axis_error(call: &Call<'_>, name: &str, rank: usize) -> Box<djinn_diag::Diagnostic> {
    call.bad(name, &format!("an axis of a tensor of rank {rank}"))
}
