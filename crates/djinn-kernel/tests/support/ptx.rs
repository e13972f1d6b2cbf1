//! Runs PTX on the emulator.

use djinn_cuda_emulator::ptx::{Buffers, Launch, Module, run as launch};
use djinn_interp::Env;
use djinn_kernel::GpuKernel;

/// Blocks of a launch, at most: fewer than there is work for, so that blocks take several shares.
const BLOCKS: i64 = 3;

/// Runs all launches of a kernel on these arguments, every other one from the last block to the first.
pub(crate) fn run(
    what: &str,
    kernel: &GpuKernel,
    ptx: &str,
    buffers: &mut [Vec<u8>],
    (sizes, env): (&[i64], &Env),
) {
    let module = Module::parse(ptx).unwrap_or_else(|e| panic!("{what}: {e}\n{ptx}"));
    let mut memory = Buffers::new();
    let addresses: Vec<u64> = buffers.iter().map(|b| memory.add(b.clone())).collect();
    let sizes = sizes.iter().map(|n| *n as u64);
    let params: Vec<u8> = addresses.iter().copied().chain(sizes).flat_map(u64::to_le_bytes).collect();
    for (i, l) in kernel.launches.iter().enumerate() {
        let function = module.kernel(&l.function).unwrap_or_else(|| panic!("{what}: no {}", l.function));
        let blocks = env.eval(&l.grid[0]).expect("sizes are known").clamp(1, BLOCKS);
        let mut how = Launch::new(blocks as u32, l.block[0]);
        how.reverse = i % 2 == 1;
        if let Err(e) = launch(function, &how, &params, &mut memory) {
            panic!("{what}: {}: {e}\n{}\n{ptx}", l.function, kernel.mlir);
        }
    }
    for (buffer, address) in buffers.iter_mut().zip(addresses) {
        buffer.copy_from_slice(memory.bytes(address).expect("it was added"));
    }
}
