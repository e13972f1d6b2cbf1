//! GPU code of kernel groups, interpreted on the values of a run.

use crate::kernels::{Traced, judge};
use djinn::ir::{Dim, TensorData, ValueId};
use djinn_cuda_emulator::ptx::{self, Buffers, Module, Trouble};
use djinn_kernel::{GpuKernel, Param};

/// What a kernel that was interpreted came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// It ended; the largest error.
    Ran { error: f64 },
    /// It takes more instructions than allowed.
    TooLong,
}

/// Blocks that CUDA takes in the first dimension.
const MOST_BLOCKS: i64 = i32::MAX as i64;

/// Fills what a kernel writes before it does.
const POISON: u8 = 0xa5;

/// Runs the functions of a kernel in order. Operands that share memory with a result are in `aliases`.
pub(crate) fn interpret(
    kernel: &GpuKernel,
    text: &str,
    aliases: &[(ValueId, ValueId)],
    traced: &Traced,
    (limit, reverse): (u64, bool),
) -> Result<Outcome, String> {
    let module = Module::parse(text).map_err(|e| format!("PTX is not read: {e}"))?;
    let mut memory = Buffers::new();
    let words = arguments(kernel, aliases, traced, &mut memory)?;
    let params: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let size = |d: &Dim| traced.env.eval(d).ok_or_else(|| format!("the size {d} is not known"));
    let mut instructions = 0;
    for launch in &kernel.launches {
        let code = module.kernel(&launch.function).ok_or("a function is missing")?;
        let mut grid = [1; 3];
        for (blocks, dim) in grid.iter_mut().zip(&launch.grid) {
            *blocks = u32::try_from(size(dim)?.clamp(1, MOST_BLOCKS)).unwrap_or(1);
        }
        let dynamic_shared =
            u32::try_from(size(&launch.shared_bytes)?).map_err(|_| "too much shared memory")?;
        let left = limit - instructions;
        // What surely takes too long is not begun.
        let threads = grid.iter().chain(&launch.block).map(|n| u64::from(*n)).product::<u64>();
        if threads > left {
            return Ok(Outcome::TooLong);
        }
        let how = ptx::Launch { grid, block: launch.block, dynamic_shared, limit: left, reverse };
        match ptx::run(code, &how, &params, &mut memory) {
            Ok(done) => instructions += done,
            Err(fault) if fault.trouble == Trouble::Limit => return Ok(Outcome::TooLong),
            Err(fault) => return Err(format!("'{}': {fault}", launch.function)),
        }
    }
    let mut error = 0.0f64;
    for (param, base) in kernel.params.iter().zip(&words) {
        let Param::Write(v) = param else { continue };
        let expected = traced.values.get(v).ok_or("a value is missing")?;
        let actual = memory.bytes(*base).ok_or("a buffer is missing")?.to_vec();
        let actual =
            TensorData::new(expected.dtype(), expected.shape().to_vec(), actual).ok_or("a shape is wrong")?;
        error = error.max(judge(expected, &actual)?);
    }
    Ok(Outcome::Ran { error })
}

/// Addresses and sizes, a word each; what is written is poisoned. Buffers have the very sizes of the values, so that
/// what runs over an end is a fault.
fn arguments(
    kernel: &GpuKernel,
    aliases: &[(ValueId, ValueId)],
    traced: &Traced,
    memory: &mut Buffers,
) -> Result<Vec<u64>, String> {
    let bytes_of = |v: &ValueId| traced.values.get(v).map(TensorData::bytes).ok_or("a value is missing");
    let size = |d: &Dim| traced.env.eval(d).ok_or_else(|| format!("the size {d} is not known"));
    let mut words = Vec::new();
    for param in &kernel.params {
        let bytes = match param {
            Param::Read(v) => bytes_of(v)?.to_vec(),
            Param::Write(v) => {
                let shared = aliases.iter().find(|(_, w)| w == v).map(|(r, _)| bytes_of(r)).transpose()?;
                let mut bytes = shared.unwrap_or_default().to_vec();
                bytes.resize(bytes_of(v)?.len(), POISON);
                bytes
            }
            Param::Scratch { elements, dtype } => {
                vec![POISON; usize::try_from(size(elements)?).unwrap_or(0) * dtype.size()]
            }
            Param::Size(dim) => {
                words.push(size(dim)? as u64);
                continue;
            }
        };
        words.push(memory.add(bytes));
    }
    Ok(words)
}
