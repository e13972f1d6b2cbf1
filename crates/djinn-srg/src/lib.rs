//! The semantically rich graph (SRG): what a frontend hands over.
//!
//! An [`Srg`] is a program of one or more functions, each a petgraph graph whose nodes are operations of the op
//! table with their tensor types, the framework operation they came from, and semantic annotations (phase,
//! residency, modality, module scope, source line). [`SrgBuilder`] makes one in code, [`lower`] turns it into IR,
//! [`json`] and [`binary`] are its file forms, and [`read`] reads either. [`gzip`] is what file frontends share.
//!
//! Invariant: nodes hold everything planning needs (shape, dtype, logical device) locally; nothing is asked remotely.

mod base64;
pub mod binary;
mod builder;
pub mod gzip;
pub mod json;
mod lower;

pub use builder::{Origin, SrgBuilder, SrgValue};
pub use lower::lower;

use djinn_ir::{ArgumentKind, Attrs, ContentHash, Dim, OpKind, ResultKind, SymbolTable, TensorType, Weight};
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A program: functions that share weights, state and symbols.
#[derive(Debug, Clone, Default)]
pub struct Srg {
    /// Entry functions.
    pub functions: Vec<SrgFunction>,
    /// Weights by name.
    pub weights: BTreeMap<Arc<str>, Weight>,
    /// What is known of the symbols.
    pub symbols: SymbolTable,
    /// Free-form facts about the model (producer, framework version, …).
    pub metadata: BTreeMap<Arc<str>, Arc<str>>,
    /// Content hashes of weights whose bytes are elsewhere, by name of the weight.
    pub absent: BTreeMap<Arc<str>, ContentHash>,
}

/// Reads a program in binary or JSON form, whichever it is. Weights of the binary form stay windows of `file`.
///
/// # Errors
/// See [`binary::read`] and [`json::read`].
pub fn read(file: Arc<dyn AsRef<[u8]> + Send + Sync>) -> djinn_diag::Result<Srg> {
    if binary::is_binary((*file).as_ref()) {
        return binary::read(file, binary::ContentCheck::Hash);
    }
    match std::str::from_utf8((*file).as_ref()) {
        Ok(text) => json::read(text),
        Err(_) => Err(djinn_diag::input("srg.format", "the file is neither a binary SRG nor text in UTF-8")),
    }
}

/// An entry function.
#[derive(Debug, Clone)]
pub struct SrgFunction {
    /// Name, unique in the program.
    pub name: Arc<str>,
    /// The body. Its arguments are `arguments` in order.
    pub body: SrgGraph,
    /// Name and kind of every argument.
    pub arguments: Vec<(Arc<str>, ArgumentKind)>,
    /// Name and kind of every result.
    pub results: Vec<(Arc<str>, ResultKind)>,
}

/// The body of a function or of a region.
#[derive(Debug, Clone, Default)]
pub struct SrgGraph {
    /// Nodes and data edges. Node indices are in a valid order of execution.
    pub graph: DiGraph<SrgNode, SrgEdge>,
    /// Argument nodes, in order.
    pub arguments: Vec<NodeIndex>,
    /// Values given back, in order.
    pub results: Vec<SrgValue>,
}

/// A node: an argument or an operation.
#[derive(Debug, Clone)]
pub struct SrgNode {
    /// The operation, or `None` for an argument.
    pub kind: Option<OpKind>,
    /// Attributes as in the op table.
    pub attrs: Attrs,
    /// Types of the results (of the one value, for an argument).
    pub types: Vec<TensorType>,
    /// Regions of control-flow operations.
    pub regions: Vec<SrgGraph>,
    /// Where it comes from.
    pub origin: Origin,
    /// Semantic annotations that the frontend gave.
    pub semantics: Semantics,
}

/// A data edge from a result to an operand.
#[derive(Debug, Clone, PartialEq)]
pub struct SrgEdge {
    /// Result number at the source.
    pub result: u32,
    /// Operand number at the target.
    pub operand: u32,
    /// Bytes that pass, as a symbolic size.
    pub bytes: Dim,
    /// How often the value passes per run of the function (1 unless a frontend knows better).
    pub rate: f64,
    /// Weight of the edge in scheduling decisions, 0 (uncritical) to 1; 0.5 if unknown.
    pub criticality: f64,
}

/// Semantic annotations; absent ones are inferred by passes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Semantics {
    /// Execution phase.
    pub phase: Option<Phase>,
    /// How long the value lives.
    pub residency: Option<Residency>,
    /// What kind of data it processes.
    pub modality: Option<Modality>,
    /// Logical device, such as `cuda:0`.
    pub device: Option<Arc<str>>,
    /// FLOPs that the frontend expects, if it knows better than the cost model.
    pub flops_hint: Option<u64>,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];

            /// The word used in files and annotations.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// Reads the word.
            pub fn from_word(word: &str) -> Option<$name> {
                Self::ALL.iter().copied().find(|v| v.word() == word)
            }
        }
    };
}

words! {
    /// Execution phase of an operation.
    Phase {
        /// Not known.
        Unknown = "unknown",
        /// A plain forward pass.
        Forward = "forward",
        /// Processing of a prompt.
        LlmPrefill = "llm_prefill",
        /// Generation of one token (or a few) with a KV cache.
        LlmDecode = "llm_decode",
        /// Image or video to features.
        VisionEncoding = "vision_encoding",
        /// Features to image or video.
        VisionDecoding = "vision_decoding",
        /// Where modalities meet.
        MultimodalFusion = "multimodal_fusion",
        /// Forward and backward pass.
        Training = "training",
    }
}

words! {
    /// How long a value lives.
    Residency {
        /// Within one run.
        EphemeralActivation = "ephemeral_activation",
        /// For the life of the model.
        PersistentWeight = "persistent_weight",
        /// From run to run of one session.
        StatefulKvCache = "stateful_kv_cache",
        /// Within one training step.
        Gradient = "gradient",
    }
}

words! {
    /// What kind of data is processed.
    Modality {
        /// Tokens.
        Text = "text",
        /// Pixels and their features.
        Vision = "vision",
        /// Sound and its features.
        Audio = "audio",
        /// Several together.
        Fusion = "fusion",
        /// None of these, or it cannot be told: plain numbers.
        Unknown = "unknown",
    }
}
