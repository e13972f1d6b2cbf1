//! Operations on each element.

use super::{Node, is_float};
use crate::network::{Net, Val, no_layer};
use djinn_diag::Result;
use djinn_ir::{DType, OpKind};
use trtx::{ActivationType, ElementWiseOperation as E, UnaryOperation as U};

/// Operations that one unary or activation layer is.
pub(super) fn unary<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    use OpKind as K;
    let x = node.x(0)?;
    let op = match node.kind {
        K::Abs => U::kABS,
        K::Neg => U::kNEG,
        K::Sign => U::kSIGN,
        K::Exp => U::kEXP,
        K::Log => U::kLOG,
        K::Sqrt => U::kSQRT,
        K::Reciprocal => U::kRECIP,
        K::Sin => U::kSIN,
        K::Cos => U::kCOS,
        K::Tan => U::kTAN,
        K::Asin => U::kASIN,
        K::Acos => U::kACOS,
        K::Atan => U::kATAN,
        K::Sinh => U::kSINH,
        K::Cosh => U::kCOSH,
        K::Asinh => U::kASINH,
        K::Acosh => U::kACOSH,
        K::Atanh => U::kATANH,
        K::Erf => U::kERF,
        K::Floor => U::kFLOOR,
        K::Ceil => U::kCEIL,
        K::Round => U::kROUND,
        K::IsNan => U::kISNAN,
        K::Not if x.dtype() == DType::Bool => U::kNOT,
        K::Tanh => return net.activation(x, ActivationType::kTANH),
        K::Sigmoid => return net.activation(x, ActivationType::kSIGMOID),
        K::Rsqrt => {
            let root = net.unary(x, U::kSQRT)?;
            return net.unary(&root, U::kRECIP);
        }
        K::IsInf => return is_inf(net, node),
        _ => return Err(no_layer("there is no layer for this element type")),
    };
    net.unary(x, op)
}

fn is_inf<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    match (node.attrs.bool("negative"), node.attrs.bool("positive")) {
        (true, true) => net.unary(x, U::kISINF),
        (false, true) => net.with_number(x, E::kEQUAL, f64::INFINITY),
        (true, false) => net.with_number(x, E::kEQUAL, f64::NEG_INFINITY),
        (false, false) => Err(no_layer("it asks for no infinity")),
    }
}

/// Activation functions. Those with parameters are put together: the bindings cannot set a layer's alpha and beta.
pub(super) fn activation<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    use OpKind as K;
    let x = node.x(0)?;
    match node.kind {
        K::Relu if is_float(x.dtype()) => net.activation(x, ActivationType::kRELU),
        K::Relu => net.with_number(x, E::kMAX, 0.0),
        K::Gelu if node.attrs.str("approximate") == "tanh" => net.activation(x, ActivationType::kGELU_TANH),
        K::Gelu => net.activation(x, ActivationType::kGELU_ERF),
        K::Silu => {
            let gate = net.activation(x, ActivationType::kSIGMOID)?;
            net.binary(x, &gate, E::kPROD)
        }
        K::LeakyRelu => {
            let scaled = net.with_number(x, E::kPROD, node.attrs.float("alpha"))?;
            below_zero(net, x, &scaled)
        }
        K::Elu => {
            // Above zero exp may overflow; what is selected never does.
            let bounded = net.with_number(x, E::kMIN, 0.0)?;
            let power = net.unary(&bounded, U::kEXP)?;
            let less = net.with_number(&power, E::kSUB, 1.0)?;
            let scaled = net.with_number(&less, E::kPROD, node.attrs.float("alpha"))?;
            below_zero(net, x, &scaled)
        }
        K::HardSigmoid => hard_sigmoid(net, x, node.attrs.float("alpha"), node.attrs.float("beta")),
        K::HardSwish => {
            let gate = hard_sigmoid(net, x, 1.0 / 6.0, 0.5)?;
            net.binary(x, &gate, E::kPROD)
        }
        K::Mish => {
            let soft = softplus(net, x)?;
            let gate = net.activation(&soft, ActivationType::kTANH)?;
            net.binary(x, &gate, E::kPROD)
        }
        _ => Err(no_layer("it is no activation function")),
    }
}

/// `other` where x is below zero, else x.
fn below_zero<'n>(net: &mut Net<'n>, x: &Val<'n>, other: &Val<'n>) -> Result<Val<'n>> {
    let below = net.with_number(x, E::kLESS, 0.0)?;
    net.select(&below, other, x)
}

fn hard_sigmoid<'n>(net: &mut Net<'n>, x: &Val<'n>, alpha: f64, beta: f64) -> Result<Val<'n>> {
    let scaled = net.with_number(x, E::kPROD, alpha)?;
    let moved = net.with_number(&scaled, E::kSUM, beta)?;
    let low = net.with_number(&moved, E::kMIN, 1.0)?;
    net.with_number(&low, E::kMAX, 0.0)
}

/// max(x, 0) + log(1 + exp(−|x|)): the layer computes log(1 + exp(x)), which overflows.
pub(super) fn softplus<'n>(net: &mut Net<'n>, x: &Val<'n>) -> Result<Val<'n>> {
    let positive = net.with_number(x, E::kMAX, 0.0)?;
    let size = net.unary(x, U::kABS)?;
    let negative = net.unary(&size, U::kNEG)?;
    let power = net.unary(&negative, U::kEXP)?;
    let sum = net.with_number(&power, E::kSUM, 1.0)?;
    let log = net.unary(&sum, U::kLOG)?;
    net.binary(&positive, &log, E::kSUM)
}

/// Conversions; `x ≠ 0` for those to bool.
pub(super) fn cast<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    let x = node.x(0)?;
    let to = node.types[0].dtype;
    if to == DType::Bool && x.dtype() != DType::Bool {
        let equal = net.with_number(x, E::kEQUAL, 0.0)?;
        return net.unary(&equal, U::kNOT);
    }
    net.cast(x, to)
}

/// Arithmetic on two operands.
pub(super) fn arithmetic<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    use OpKind as K;
    let (a, b) = (node.x(0)?, node.x(1)?);
    let op = match node.kind {
        K::Add => E::kSUM,
        K::Sub => E::kSUB,
        K::Mul => E::kPROD,
        K::Min => E::kMIN,
        K::Max => E::kMAX,
        K::Div if is_float(a.dtype()) => E::kDIV,
        K::Div => return divide(net, node, a, b, E::kDIV),
        K::Mod => return remainder(net, node, a, b),
        K::Pow => return power(net, node, a, b),
        _ => return Err(no_layer("it is no arithmetic")),
    };
    if a.dtype() == DType::Bool {
        return Err(no_layer("there is no layer for bool"));
    }
    net.binary(a, b, op)
}

/// Division of integers, 0 where the divisor is.
fn divide<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>, a: &Val<'n>, b: &Val<'n>, op: E) -> Result<Val<'n>> {
    if node.splat(1).is_some_and(|divisor| divisor != 0.0) {
        return net.binary(a, b, op);
    }
    let zero = net.with_number(b, E::kEQUAL, 0.0)?;
    let one = net.number(b.dtype(), b.rank(), 1.0)?;
    let safe = net.select(&zero, &one, b)?;
    let quotient = net.binary(a, &safe, op)?;
    let none = net.number(a.dtype(), quotient.rank(), 0.0)?;
    net.select(&zero, &none, &quotient)
}

/// a − ⌊a/b⌋·b, or with the quotient truncated; 0 where b is. Of floats the quotient would round.
fn remainder<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>, a: &Val<'n>, b: &Val<'n>) -> Result<Val<'n>> {
    if is_float(a.dtype()) {
        return Err(no_layer("there is no exact remainder of floats"));
    }
    let op = if node.attrs.bool("fmod") { E::kDIV } else { E::kFLOOR_DIV };
    let quotient = divide(net, node, a, b, op)?;
    let product = net.binary(&quotient, b, E::kPROD)?;
    let rest = net.binary(a, &product, E::kSUB)?;
    if node.splat(1).is_some_and(|divisor| divisor != 0.0) {
        return Ok(rest);
    }
    let zero = net.with_number(b, E::kEQUAL, 0.0)?;
    let none = net.number(a.dtype(), rest.rank(), 0.0)?;
    net.select(&zero, &none, &rest)
}

fn power<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>, a: &Val<'n>, b: &Val<'n>) -> Result<Val<'n>> {
    if !is_float(a.dtype()) {
        return Err(no_layer("there is no power of integers"));
    }
    if node.types[0].rank() == a.rank() {
        match node.splat(1) {
            Some(2.0) => return net.binary(a, a, E::kPROD),
            Some(3.0) => {
                let square = net.binary(a, a, E::kPROD)?;
                return net.binary(&square, a, E::kPROD);
            }
            _ => {}
        }
    }
    let b = net.cast(b, a.dtype())?;
    net.binary(a, &b, E::kPOW)
}

/// Comparisons, selections and logic.
pub(super) fn logic<'n>(net: &mut Net<'n>, node: &Node<'_, 'n>) -> Result<Val<'n>> {
    use OpKind as K;
    let (a, b) = (node.x(0)?, node.x(1)?);
    match node.kind {
        K::Compare => compare(net, a, b, node.attrs.str("predicate")),
        K::Select => net.select(a, b, node.x(2)?),
        K::Clamp => {
            let low = net.binary(a, b, E::kMAX)?;
            net.binary(&low, node.x(2)?, E::kMIN)
        }
        _ if a.dtype() != DType::Bool => Err(no_layer("there is no logic on the bits of integers")),
        K::And => net.binary(a, b, E::kAND),
        K::Or => net.binary(a, b, E::kOR),
        _ => net.binary(a, b, E::kXOR),
    }
}

/// Every predicate but `ne` is false on NaN, so `le` is no negated `gt`.
fn compare<'n>(net: &mut Net<'n>, a: &Val<'n>, b: &Val<'n>, predicate: &str) -> Result<Val<'n>> {
    let ordered = !matches!(predicate, "eq" | "ne");
    if a.dtype() == DType::Bool && ordered {
        return Err(no_layer("there is no order of bools"));
    }
    let op = match predicate {
        "eq" | "ne" => E::kEQUAL,
        "lt" | "le" => E::kLESS,
        _ => E::kGREATER,
    };
    let found = net.binary(a, b, op)?;
    match predicate {
        "ne" => net.unary(&found, U::kNOT),
        "le" | "ge" => {
            let equal = net.binary(a, b, E::kEQUAL)?;
            net.binary(&found, &equal, E::kOR)
        }
        _ => Ok(found),
    }
}
