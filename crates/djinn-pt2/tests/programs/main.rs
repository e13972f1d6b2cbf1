//! Tiny programs: operators, in-place writes, and damage.

mod hostile;
mod mutate;
mod mutation;
mod operators;
mod program;
