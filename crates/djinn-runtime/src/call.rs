//! Calls compiled code.

use crate::code::KernelCode;
use crate::compiled::{Home, StepCode};
use crate::events::lock;
use crate::execute::Run;
use crate::jit::{Fused, FusedParam};
use crate::launch::{Frame, Held};
use crate::memory::{Bytes, BytesMut, Store};
use crate::resolve::{byte_size, type_of, wrong};
use djinn_diag::{Context, Result, input, internal};
use djinn_interp::Env;
use djinn_ir::{Attrs, Dim, Graph, OpId, TensorData, TensorType, infer};
use std::collections::BTreeMap;
use std::ffi::c_void;

/// Scratch memory of one call, at most.
const MAX_SCRATCH: u64 = 4 << 30;

impl Run<'_> {
    /// Runs a step of compiled code.
    pub(crate) fn call_fused(&self, fused: &Fused, code: &StepCode, frame: &mut Frame) -> Result<()> {
        self.check_sizes(fused, code, frame)?;
        let mut made: BTreeMap<usize, (Vec<usize>, Vec<u64>, usize)> = BTreeMap::new();
        for result in &code.results {
            let shape = frame.shape(*result)?;
            let bytes = byte_size(&frame.local(*result)?.ty, &shape)?;
            if let Home::Write(write) = frame.local(*result)?.home {
                self.setting.memory.check_room(&frame.kernel.writes[write].to.slot, bytes)?;
                frame.held[*result] = Held::Placed(bytes);
            } else {
                made.insert(*result, (shape, scratch(bytes)?, bytes as usize));
            }
        }
        self.call_on_addresses(fused, frame, &mut made)?;
        for (result, (shape, words, bytes)) in made {
            let dtype = frame.local(result)?.ty.dtype;
            let value = djinn_ir::data::Bytes::window(std::sync::Arc::new(Words(words)), 0, bytes)
                .and_then(|bytes| TensorData::new(dtype, shape, bytes));
            let value = value.ok_or_else(|| internal("runtime.results", "a result has other bytes"))?;
            frame.held[result] = Held::Made(value);
        }
        Ok(())
    }

    #[allow(unsafe_code, reason = "compiled code is called")]
    fn call_on_addresses(
        &self,
        fused: &Fused,
        frame: &Frame,
        made: &mut BTreeMap<usize, (Vec<usize>, Vec<u64>, usize)>,
    ) -> Result<()> {
        // The arguments' values: addresses and sizes. `copies` and `work` keep what some of the addresses point to.
        let mut addresses: Vec<*mut c_void> = vec![std::ptr::null_mut(); fused.params.len()];
        let mut sizes = vec![0i64; fused.params.len()];
        let (mut copies, mut work): (Vec<Vec<u64>>, Vec<Vec<u64>>) = Default::default();
        for (i, param) in fused.params.iter().enumerate() {
            match param {
                FusedParam::Read(local) => {
                    let bytes = self.bytes(*local, frame)?;
                    addresses[i] =
                        read_address(&bytes, frame.local(*local)?.ty.dtype.size(), &mut copies)?.cast();
                }
                FusedParam::Write(local) => {
                    addresses[i] = match (made.get_mut(local), frame.local(*local)?.home, &frame.held[*local])
                    {
                        (Some((_, words, _)), ..) => words.as_mut_ptr().cast(),
                        (None, Home::Write(write), Held::Placed(bytes)) => {
                            self.write_address(frame.kernel, write, *bytes)?.cast()
                        }
                        _ => return Err(internal("runtime.results", "a result has no place")),
                    };
                }
                FusedParam::Scratch(elements, size) => {
                    let bytes = u64::try_from(size_of(elements, &frame.env)?)
                        .ok()
                        .and_then(|n| n.checked_mul(*size as u64));
                    work.push(scratch(bytes.unwrap_or(u64::MAX))?);
                    addresses[i] = work.last_mut().map_or(std::ptr::null_mut(), |w| w.as_mut_ptr().cast());
                }
                FusedParam::Size(dim) => sizes[i] = size_of(dim, &frame.env)?,
            }
        }
        let arguments = fused.params.iter().zip(addresses.iter_mut().zip(&mut sizes));
        let mut arguments: Vec<*mut c_void> = arguments
            .map(|(param, (address, size))| match param {
                FusedParam::Size(_) => std::ptr::from_mut(size).cast(),
                _ => std::ptr::from_mut(address).cast(),
            })
            .collect();
        // SAFETY: there is one entry for every parameter of the function, which has no result; each points to a value of
        // its type. The addresses reach as many bytes as the types of the values have for the sizes that are passed, and
        // `check_sizes` has found that the operations fit together for these. What is written is this command's alone and
        // what is read is written by no other command meanwhile, as the checker of plans has found; inside the kernel,
        // what is written overlaps what is read only where the function was made for it (`compiled.rs`).
        unsafe { fused.function.call(&mut arguments) }
        Ok(())
    }

    fn write_address(&self, kernel: &KernelCode, write: usize, bytes: u64) -> Result<*mut u8> {
        match self.setting.memory.bytes_mut(&kernel.writes[write].to.slot, bytes)? {
            BytesMut::Shared(at, _) => Ok(at),
            BytesMut::Own(bytes) => Ok(bytes.as_mut_ptr()),
        }
    }

    /// Do the operations go together for these sizes? Types with symbols promise less than compiled code relies on.
    fn check_sizes(&self, fused: &Fused, code: &StepCode, frame: &Frame) -> Result<()> {
        let locals = &frame.compiled.locals;
        let known = |l: &usize| locals.get(*l).is_some_and(|l| l.fixed.is_some());
        if code.operands.iter().chain(&code.results).all(known) {
            return Ok(());
        }
        let sizes: Vec<i64> = frame.env.iter().map(|(_, v)| v).collect();
        let mut checked = lock(&fused.checked);
        if checked.as_ref() == Some(&sizes) {
            return Ok(());
        }
        for op in &fused.ops {
            check_op(self.graph(), *op, &frame.env)?;
        }
        *checked = Some(sizes);
        Ok(())
    }
}

/// Does an operation go together for these sizes?
pub(crate) fn check_op(graph: &Graph, id: OpId, env: &Env) -> Result<()> {
    let op = graph.get_op(id).ok_or_else(|| wrong("an operation is not there"))?;
    let concrete = |v: &djinn_ir::ValueId| -> Result<TensorType> {
        let ty = type_of(graph, *v)?;
        Ok(TensorType::new(ty.dtype, env.shape(ty)?.into_iter().map(Dim::from)))
    };
    let operands = op.operands.iter().map(concrete).collect::<Result<Vec<_>>>()?;
    let attrs = concretize(&op.attrs, env)?;
    let types = infer::infer(op.kind, &operands.iter().collect::<Vec<_>>(), &attrs, &op.regions)
        .at(|| format!("operation '{}'", op.kind.name()))?;
    for (ty, v) in types.iter().zip(&op.results) {
        let declared = concrete(v)?;
        if *ty != declared {
            let message =
                format!("'{}' gives {ty} for these sizes where its type says {declared}", op.kind.name());
            return Err(input("runtime.sizes", message));
        }
    }
    Ok(())
}

fn concretize(attrs: &Attrs, env: &Env) -> Result<Attrs> {
    use djinn_ir::Attr;
    let mut out = attrs.clone();
    for (name, attr) in attrs.iter() {
        match attr {
            Attr::Dim(dim) => out.set(name.to_owned(), Dim::from(size_of(dim, env)?)),
            Attr::Dims(dims) => {
                let dims: Result<Vec<Dim>> = dims.iter().map(|d| size_of(d, env).map(Dim::from)).collect();
                out.set(name.to_owned(), dims?);
            }
            _ => {}
        }
    }
    Ok(out)
}

/// The value of a size.
pub(crate) fn size_of(dim: &Dim, env: &Env) -> Result<i64> {
    env.eval(dim).ok_or_else(|| input("interp.symbol", format!("the size {dim} has no value here")))
}

/// Memory for so many bytes on the boundary of words.
fn scratch(bytes: u64) -> Result<Vec<u64>> {
    if bytes > MAX_SCRATCH {
        return Err(input("runtime.memory", format!("a kernel needs {bytes} bytes of scratch memory")));
    }
    Ok(vec![0; bytes.div_ceil(8) as usize])
}

/// The address of bytes that are read, which lies on the boundary of their elements; bytes that do not are copied.
fn read_address(bytes: &Bytes, align: usize, copies: &mut Vec<Vec<u64>>) -> Result<*mut u8> {
    let slice = bytes.as_slice();
    if slice.as_ptr().addr().is_multiple_of(align.max(1)) {
        return Ok(slice.as_ptr().cast_mut());
    }
    let mut copy = scratch(slice.len() as u64)?;
    for (word, chunk) in copy.iter_mut().zip(slice.chunks(8)) {
        let mut whole = [0u8; 8];
        whole[..chunk.len()].copy_from_slice(chunk);
        *word = u64::from_ne_bytes(whole);
    }
    copies.push(copy);
    Ok(copies.last_mut().map_or(std::ptr::null_mut(), |c| c.as_mut_ptr().cast()))
}

/// Words as bytes.
struct Words(Vec<u64>);

impl AsRef<[u8]> for Words {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
