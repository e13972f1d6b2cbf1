//! TensorRT engines: an engine region of a plan becomes a self-contained module, a network, an engine.
//!
//! - [`Library`]: finds TensorRT and loads it at run time; nothing here is linked to it;
//! - [`Region`]: what one engine holds, cut out of its program: one function whose arguments are what comes from outside,
//!   with weights among them, so that equal layers are equal regions and share an engine;
//! - [`Precision`]: element types inside a region, as casts that the evaluator sees too;
//! - [`build`]: region to [`Engine`]; the builder's messages become diagnostics and are never printed;
//! - [`build_or_split`]: the same for a region that TensorRT may refuse in part: smaller regions, and reasons;
//! - [`Loaded`]: an engine on a GPU, enqueued on a stream with the caller's memory.
//!
//! The network is strongly typed and made layer by layer from the operations; every layer's result is compared with the
//! type that the IR gives it. An operation whose meaning no layer has exactly is refused and stays with kernels. What is
//! accepted although a layer may differ:
//!
//! | operation | difference |
//! |---|---|
//! | `min`, `max`, `relu`, `clamp`, reductions, `argmax`, pools | which of several NaN and numbers wins is not specified |
//! | `cast` of floats to integers | NaN to i64 gives the lowest number (PTX ISA, `cvt`), not 0 |
//! | `scatter_nd`, `scatter_elements`, `index_copy` | with equal indices any of the updates may win |
//! | everything in f16 and bf16 | layers accumulate in f32 and round once |
//!
//! Weights are inputs of engines, so that one loaded engine serves every equal layer, with the weights where the plan has
//! them. Constants that are refitted (`IRefitter`) are no alternative: TensorRT-RTX 1.7.1 compiles a network with `kREFIT` or
//! `kREFIT_IDENTICAL` on a GPU only ("graph_jit.cpp:278: CHECK(status == CUDA_SUCCESS) failed" without a driver, where the
//! same network without the flag builds), while engines are built here without one; and every layer would need an engine of
//! its own in device memory, with its own copy of the weights, which no plan counts.
//!
//! Builds of one process run one after the other: the library does not stand them side by side.
//!
//! Invariant: no result depends on a clock or on hash order; the same region and library give the same network.

mod engine;
mod library;
mod loaded;
mod log;
mod lower;
mod network;
mod precision;
mod profile;
mod region;
mod sizes;
mod split;

pub use engine::{BuildOptions, Engine, Layer, Port, build, builds_for};
pub use library::{Kind, LIBRARY_VARIABLE, Library, VENV_VARIABLE};
pub use loaded::{Binding, Loaded, PortInfo};
pub use precision::Precision;
pub use region::{Argument, ArgumentSource, Region, SymbolBinding};
pub use split::{Outcome, build_or_split};
