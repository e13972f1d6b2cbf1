//! Hashes of programs, quick enough to be the key of a cache that is looked up on every start.
//!
//! A program is written down in a compact form of its own, value by value in order of execution, and the bytes go
//! through BLAKE3 (O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020). The form depends on neither machine nor compiler:
//! lengths stand before what they count, numbers are in LEB128, names are written out.
//!
//! | hash | what counts | what does not |
//! |---|---|---|
//! | [`program_hash`] | everything that [`crate::walk::same_module`] compares | numbers of values and operations |
//! | [`graph_hash`] | a body, in its order, with annotations | also locations |
//! | [`constant_hashes`] | how a value known ahead of time is computed, weights by content | also names, order, annotations |

use crate::attr::Attr;
use crate::data::{ContentHash, TensorData};
use crate::dim::Dim;
use crate::graph::{ArgumentKind, Function, Graph, Location, Module, Op, ResultKind, ValueId, Visibility};
use crate::ops::OpKind;
use crate::types::TensorType;
use crate::walk;

/// Bytes that are collected before they are hashed together; BLAKE3 hashes chunks of 1 KiB side by side.
const BUFFER: usize = 1 << 15;

static NOWHERE: Location = Location { scope: None, source: None };

/// Writes values down and hashes the bytes.
pub(crate) struct Encoder {
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
}

impl Encoder {
    fn new() -> Self {
        Encoder { buffer: Vec::with_capacity(BUFFER + BUFFER / 8), hasher: blake3::Hasher::new() }
    }

    /// One byte: what comes next.
    pub(crate) fn tag(&mut self, tag: u8) {
        self.buffer.push(tag);
    }

    /// An unsigned number in groups of seven bits, so that small numbers take one byte.
    pub(crate) fn number(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.buffer.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.buffer.push(v as u8);
    }

    /// A signed number, its sign in the lowest bit.
    pub(crate) fn signed(&mut self, v: i64) {
        self.number(((v << 1) ^ (v >> 63)) as u64);
    }

    /// Text, its length first.
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    fn length(&mut self, n: usize) {
        self.number(n as u64);
    }

    fn hash(&mut self, hash: ContentHash) {
        self.buffer.extend_from_slice(&hash.0);
    }

    /// Makes room once enough bytes have come together.
    fn settle(&mut self) {
        // Whole blocks only: what begins and ends within a chunk cannot be hashed side by side with others.
        if self.buffer.len() >= BUFFER {
            let whole = self.buffer.len() / BUFFER * BUFFER;
            self.hasher.update(&self.buffer[..whole]);
            self.buffer.drain(..whole);
        }
    }

    fn tensor(&mut self, data: &TensorData) {
        self.text(data.dtype().mlir());
        self.length(data.shape().len());
        data.shape().iter().for_each(|d| self.length(*d));
        // The length follows from element type and shape.
        if data.bytes().len() < BUFFER / 8 {
            self.buffer.extend_from_slice(data.bytes());
            return;
        }
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        self.hasher.update(data.bytes());
    }

    fn ty(&mut self, ty: &TensorType) {
        self.text(ty.dtype.mlir());
        self.dims(&ty.shape);
    }

    fn dims(&mut self, dims: &[Dim]) {
        self.length(dims.len());
        dims.iter().for_each(|d| d.encode(self));
    }

    fn attr(&mut self, attr: &Attr) {
        match attr {
            Attr::Int(v) => {
                self.tag(0);
                self.signed(*v);
            }
            Attr::Float(v) => {
                self.tag(1);
                self.buffer.extend_from_slice(&v.get().to_bits().to_le_bytes());
            }
            Attr::Bool(v) => self.tag(2 + u8::from(*v)),
            Attr::Str(v) => {
                self.tag(4);
                self.text(v);
            }
            Attr::Ints(v) => {
                self.tag(5);
                self.length(v.len());
                v.iter().for_each(|v| self.signed(*v));
            }
            Attr::Floats(v) => {
                self.tag(6);
                self.length(v.len());
                v.iter().for_each(|v| self.buffer.extend_from_slice(&v.get().to_bits().to_le_bytes()));
            }
            Attr::Dim(v) => {
                self.tag(7);
                v.encode(self);
            }
            Attr::Dims(v) => {
                self.tag(8);
                self.dims(v);
            }
            Attr::DType(v) => {
                self.tag(9);
                self.text(v.mlir());
            }
            Attr::Types(v) => {
                self.tag(10);
                self.length(v.len());
                v.iter().for_each(|t| self.ty(t));
            }
            Attr::Tensor(v) => {
                self.tag(11);
                self.tensor(v);
            }
        }
    }

    fn optional_text(&mut self, text: Option<&str>) {
        self.tag(u8::from(text.is_some()));
        text.into_iter().for_each(|t| self.text(t));
    }

    fn finish128(mut self) -> ContentHash {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
        let mut out = [0u8; 16];
        out.copy_from_slice(&self.hasher.finalize().as_bytes()[..16]);
        ContentHash(out)
    }
}

/// The hash of a program: functions, weights by name, type and content hash (as far as it is known), symbols, places in
/// the model's code and metadata. Two modules have the same hash if and only if [`crate::walk::same_module`] holds (but
/// for collisions of 128 bits).
pub fn program_hash(module: &Module) -> ContentHash {
    let mut e = Encoder::new();
    e.length(module.symbols.0.len());
    for (symbol, info) in &module.symbols.0 {
        e.text(symbol.name());
        e.signed(info.min);
        e.tag(u8::from(info.max.is_some()));
        e.signed(info.max.unwrap_or(0));
        e.signed(info.divisor);
    }
    e.length(module.metadata.len());
    for (key, value) in &module.metadata {
        e.text(key);
        e.text(value);
    }
    e.length(module.weights.len());
    for (name, weight) in &module.weights {
        e.text(name);
        e.ty(&weight.ty);
        let known = weight.data.as_ref().map(|(hash, _)| *hash);
        let known = known.or_else(|| module.absent.get(name).copied());
        e.tag(u8::from(known.is_some()));
        known.into_iter().for_each(|h| e.hash(h));
        e.settle();
    }
    e.length(module.functions.len());
    module.functions.iter().for_each(|f| function(f, &mut e));
    e.finish128()
}

/// The hash of one body as it stands, whatever places in the model's code its operations come from.
pub fn graph_hash(graph: &Graph) -> ContentHash {
    let mut e = Encoder::new();
    body(graph, &mut e, None);
    e.finish128()
}

/// For every value of a function that is known ahead of time, by value number, a hash of how it is computed: weights
/// by content (or by name, without values), literals by value. Equal hashes, in whichever functions of one module,
/// mean equal values. Values that depend on weight arguments of the function have none.
pub fn constant_hashes(module: &Module, f: &Function) -> Vec<Option<ContentHash>> {
    let ahead = walk::ahead_of_time(&f.graph, |_| false);
    let mut hashes: Vec<Option<ContentHash>> = vec![None; f.graph.value_capacity()];
    for (_, op) in f.graph.ops().filter(|(_, op)| op.results.iter().any(|v| ahead[v.0 as usize])) {
        let hash = constant_hash(module, &f.graph, op, &hashes);
        for (r, v) in op.results.iter().enumerate() {
            hashes[v.0 as usize] = hash.map(|hash| numbered(hash, r));
        }
    }
    hashes
}

fn constant_hash(
    module: &Module,
    graph: &Graph,
    op: &Op,
    hashes: &[Option<ContentHash>],
) -> Option<ContentHash> {
    let mut e = Encoder::new();
    match op.kind {
        OpKind::Weight => {
            let name = op.attrs.str("name");
            let known = ContentHash::from_hex(op.attrs.str("hash")).or_else(|| module.weight_hash(name));
            if let Some(hash) = known {
                return Some(hash);
            }
            e.text(name);
        }
        OpKind::Constant => return module.constant_value(op).map(TensorData::content_hash),
        _ => {
            e.text(op.kind.name());
            op.attrs.iter().for_each(|(_, a)| e.attr(a));
            for v in &op.operands {
                e.hash((*hashes.get(v.0 as usize)?)?);
            }
        }
    }
    op.results.iter().for_each(|v| e.ty(graph.ty(*v)));
    Some(e.finish128())
}

/// The hash of result number `r`: that of the operation for the first.
fn numbered(hash: ContentHash, r: usize) -> ContentHash {
    if r == 0 {
        return hash;
    }
    let mut e = Encoder::new();
    e.hash(hash);
    e.length(r);
    e.finish128()
}

fn function(f: &Function, e: &mut Encoder) {
    e.text(&f.name);
    e.tag(u8::from(f.visibility == Visibility::Private));
    e.length(f.arguments.len());
    for (name, kind) in &f.arguments {
        e.text(name);
        match kind {
            ArgumentKind::Input => e.tag(0),
            ArgumentKind::Weight => e.tag(1),
            ArgumentKind::State { initial } => {
                e.tag(2);
                e.optional_text(initial.as_deref());
            }
        }
    }
    e.length(f.results.len());
    for (name, kind) in &f.results {
        e.text(name);
        match kind {
            ResultKind::Output => e.tag(0),
            ResultKind::Update(argument) => {
                e.tag(1);
                e.number(u64::from(*argument));
            }
        }
    }
    body(&f.graph, e, Some(&mut &NOWHERE));
}

/// Numbers values in order of definition; a value that is defined nowhere has the number 0. `place` is where the last
/// operation came from, if that counts.
fn body<'g>(graph: &'g Graph, e: &mut Encoder, mut place: Option<&mut &'g Location>) {
    let mut numbers = vec![0u32; graph.value_capacity()];
    let mut next = 1;
    let mut define = |v: &ValueId, numbers: &mut Vec<u32>| {
        if let Some(slot) = numbers.get_mut(v.0 as usize) {
            (*slot, next) = (next, next + 1);
        }
    };
    let uses = |values: &[ValueId], numbers: &[u32], e: &mut Encoder| {
        e.length(values.len());
        values.iter().for_each(|v| e.number(u64::from(numbers.get(v.0 as usize).copied().unwrap_or(0))));
    };
    e.length(graph.arguments.len());
    for v in &graph.arguments {
        define(v, &mut numbers);
        value_type(graph, *v, None, e);
    }
    e.length(graph.len());
    for (_, op) in graph.ops() {
        e.text(op.kind.name());
        uses(&op.operands, &numbers, e);
        attributes(op, e);
        e.length(op.results.len());
        for v in &op.results {
            define(v, &mut numbers);
            value_type(graph, *v, op.operands.first(), e);
        }
        if let Some(last) = place.as_deref_mut() {
            location(&op.location, last, e);
        }
        e.length(op.regions.len());
        op.regions.iter().for_each(|r| body(r, e, place.as_deref_mut()));
        e.settle();
    }
    uses(&graph.results, &numbers, e);
}

/// A place: what differs from the last one, of the scope only what follows their common beginning.
fn location<'g>(place: &'g Location, last: &mut &'g Location, e: &mut Encoder) {
    let before = std::mem::replace(last, place);
    let (scope, source) = (place.scope != before.scope, place.source != before.source);
    e.tag(u8::from(scope) | u8::from(source) << 1);
    if scope {
        let text = |l: &'g Location| l.scope.as_deref().unwrap_or_default().as_bytes();
        let same = common_beginning(text(before), text(place));
        e.tag(u8::from(place.scope.is_some()));
        e.length(same);
        e.bytes(&text(place)[same..]);
    }
    if source {
        let file = |l: &'g Location| l.source.as_ref().map(|(file, _)| file);
        let other = file(place) != file(before);
        e.tag(u8::from(place.source.is_some()) | u8::from(other) << 1);
        if let Some((file, line)) = &place.source {
            e.number(u64::from(*line));
            if other {
                e.text(file);
            }
        }
    }
}

/// How many bytes both begin with, in steps of eight.
fn common_beginning(a: &[u8], b: &[u8]) -> usize {
    let (a, b) = (a.as_chunks::<8>().0, b.as_chunks::<8>().0);
    8 * a.iter().zip(b).take_while(|(x, y)| u64::from_le_bytes(**x) == u64::from_le_bytes(**y)).count()
}

/// The type of a value, which often is that of another one.
fn value_type(graph: &Graph, v: ValueId, like: Option<&ValueId>, e: &mut Encoder) {
    let Some(value) = graph.get_value(v) else { return e.tag(0) };
    match like.and_then(|like| graph.get_value(*like)) {
        Some(like) if like.ty == value.ty => e.tag(1),
        _ => {
            e.tag(2);
            e.ty(&value.ty);
        }
    }
}

/// The op table fixes the names of the attributes and the module's weight table type and hash of a weight.
fn attributes(op: &Op, e: &mut Encoder) {
    if op.kind == OpKind::Weight {
        e.text(op.attrs.str("name"));
    } else {
        op.attrs.iter().for_each(|(_, a)| e.attr(a));
    }
    e.length(op.annotations.len());
    for (name, value) in &op.annotations {
        e.text(name);
        e.attr(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attrs;
    use crate::text::{parse_module, print_module};
    use crate::{Attrs, DType, Dim, TensorType, Visibility, Weight, weight_attrs};

    fn sample() -> Module {
        let mut g = Graph::new();
        let x = g.add_argument(TensorType::new(DType::F32, [Dim::symbol("s0"), Dim::from(4)]));
        let weight = Weight { ty: TensorType::of(DType::F32, &[4]), data: None };
        let w = g.build1(OpKind::Weight, &[], weight_attrs("w", &weight)).expect("weight");
        let y = g.build1(OpKind::Add, &[x, w], Attrs::new()).expect("add");
        let z = g.build1(OpKind::LeakyRelu, &[y], attrs! { alpha: 0.5 }).expect("leaky_relu");
        g.results = vec![z];
        let f = Function {
            name: "main".into(),
            visibility: Visibility::Entry,
            graph: g,
            arguments: vec![("x".into(), ArgumentKind::Input)],
            results: vec![("z".into(), ResultKind::Output)],
        };
        Module { functions: vec![f], weights: [("w".into(), weight)].into(), ..Module::default() }
    }

    #[test]
    fn numbering_does_not_count_and_places_do_for_programs_only() {
        let m = sample();
        let mut other = parse_module(&print_module(&m)).expect("parses");
        let g = &mut other.functions[0].graph;
        // An unused value makes all later numbers differ; it is removed again.
        let x = g.arguments[0];
        g.build1(OpKind::Exp, &[x], Attrs::new()).expect("exp");
        g.eliminate_dead_code();
        assert_eq!(program_hash(&m), program_hash(&other));
        other.functions[0].graph.ops[1].as_mut().expect("add").location.scope = Some("layers.0".into());
        assert_ne!(program_hash(&m), program_hash(&other));
        assert_eq!(graph_hash(&m.functions[0].graph), graph_hash(&other.functions[0].graph));
    }

    #[test]
    fn hashes_are_the_same_on_every_machine() {
        // Plans on disk are found by this; a change of the form must change the version of what is kept there.
        assert_eq!(program_hash(&sample()).to_string(), "df788f6dcf286a728715a2d6c71ecd90");
    }

    #[test]
    fn everything_else_counts() {
        let changes: [&dyn Fn(&mut Module); 17] = [
            &|m| m.functions[0].name = "step".into(),
            &|m| m.functions[0].visibility = Visibility::Private,
            &|m| m.functions[0].arguments[0].1 = ArgumentKind::Weight,
            &|m| m.functions[0].results[0].1 = ResultKind::Update(0),
            &|m| m.weights.values_mut().for_each(|w| w.ty.dtype = DType::F16),
            &|m| m.absent.extend([("w".into(), ContentHash([1; 16]))]),
            &|m| m.symbols.0.extend([(crate::Symbol::new("s0"), Default::default())]),
            &|m| m.functions[0].graph.annotate(crate::OpId(1), "device", "gpu0"),
            &|m| m.functions[0].graph.ops[2].as_mut().expect("op").attrs = attrs! { alpha: 0.25 },
            &|m| m.functions[0].graph.ops[1].as_mut().expect("add").operands.swap(0, 1),
            &|m| {
                m.functions[0].graph.ops[1].as_mut().expect("add").location.source = Some(("m.py".into(), 0))
            },
            &|m| m.metadata.extend([("phase.main".into(), "llm_decode".into())]),
            &|m| m.functions[0].arguments[0].0 = "y".into(),
            &|m| m.functions[0].arguments[0].1 = ArgumentKind::State { initial: None },
            &|m| m.functions[0].arguments[0].1 = ArgumentKind::State { initial: Some("".into()) },
            &|m| m.functions[0].graph.values[0].ty.shape[0] = Dim::symbol("s1"),
            &|m| m.functions[0].graph.values[0].ty.shape[0] = &Dim::symbol("s0") * &Dim::symbol("s0"),
        ];
        let mut seen = vec![program_hash(&sample())];
        for (i, change) in changes.iter().enumerate() {
            let mut m = sample();
            change(&mut m);
            let hash = program_hash(&m);
            assert!(!crate::walk::same_module(&sample(), &m), "change {i} is none");
            assert!(!seen.contains(&hash), "change {i} is not seen");
            seen.push(hash);
        }
    }

    #[test]
    fn what_is_computed_alike_from_equal_weights_has_one_hash() {
        let data = |v: f64| TensorData::splat(DType::F32, &[2, 3], v).expect("fits");
        let mut module = Module::default();
        for (name, v) in [("a", 1.0), ("b", 1.0), ("c", 2.0)] {
            module.weights.insert(name.into(), Weight::with_data(data(v)));
        }
        module.weights.insert("d".into(), Weight { ty: data(1.0).ty(), data: None });
        let function = |weights: [&str; 2]| {
            let mut g = Graph::new();
            let read = |g: &mut Graph, n: &str| {
                g.build1(OpKind::Weight, &[], weight_attrs(n, &module.weights[n])).expect("weight")
            };
            let (a, b) = (read(&mut g, weights[0]), read(&mut g, weights[1]));
            let joined = g.build1(OpKind::Concat, &[a, b], attrs! { axis: 0i64 }).expect("concat");
            g.results = vec![joined];
            let results = vec![("y".into(), ResultKind::Output)];
            Function { name: "f".into(), visibility: Visibility::Entry, graph: g, arguments: vec![], results }
        };
        let hash = |weights| {
            let f = function(weights);
            constant_hashes(&module, &f)[f.graph.results[0].0 as usize].expect("known ahead of time")
        };
        assert_eq!(hash(["a", "c"]), hash(["b", "c"]));
        assert_ne!(hash(["a", "c"]), hash(["c", "a"]));
        assert_ne!(hash(["a", "c"]), hash(["a", "d"]));
        assert_eq!(hash(["d", "b"]), hash(["d", "a"]));
    }
}
