//! The driver: devices whose work is done late and in an order that chance gives.

pub(crate) mod abi;
mod abi_graph;
mod abi_memory;
mod abi_module;
mod abi_stream;
mod capture;
pub(crate) mod code;
pub(crate) mod space;
pub(crate) mod state;
pub(crate) mod task;
