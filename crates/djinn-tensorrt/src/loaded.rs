//! Engines on a GPU: loaded once, enqueued on streams with the caller's memory.

use crate::library::Library;
use crate::log::Messages;
use crate::network::dtype_of;
use djinn_diag::{Diagnostic, Result, input, internal, unsupported};
use djinn_ir::DType;
use std::ffi::c_void;
use std::sync::{Mutex, OnceLock, PoisonError};
use trtx::{CudaEngine, ExecutionContext, Logger, Runtime, TensorIOMode, TensorLocation};

/// Dimensions that a tensor of TensorRT can have (`NvInferRuntimeBase.h`, `Dims64::MAX_DIMS`).
const MAX_DIMS: usize = 8;

/// One load at a time, so that what TensorRT says of it can be told.
static LOADING: Mutex<()> = Mutex::new(());

/// An input or output of a loaded engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Its sizes; −1 for those known at run time.
    pub shape: Vec<i64>,
}

/// Memory for an input or output of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Name of the port.
    pub name: &'a str,
    /// Element type of what is there.
    pub dtype: DType,
    /// Device address of the first element.
    pub address: u64,
    /// Its sizes.
    pub shape: &'a [usize],
}

/// An engine with an execution context, on the device that was current when it was loaded.
///
/// TensorRT takes the memory that its layers need between them when the engine is loaded, from its own allocator, beside
/// what plans count; the bindings do not say how much. Runs of one `Loaded` must not overlap: enqueue them on one stream,
/// or order the streams.
pub struct Loaded {
    // Dropped in this order: a context before its engine, an engine before its runtime.
    context: ExecutionContext<'static>,
    _engine: CudaEngine<'static>,
    _runtime: Runtime<'static>,
    inputs: Vec<PortInfo>,
    outputs: Vec<PortInfo>,
    messages: &'static Messages,
}

#[allow(unsafe_code, reason = "the bindings leave open whether engines may move between threads")]
// SAFETY: TensorRT's objects are tied to no thread; an execution context must only be used by one at a time
// (`NvInferRuntime.h`, `IExecutionContext`), and all use of it takes `&mut self`.
unsafe impl Send for Loaded {}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("inputs", &self.inputs).field("outputs", &self.outputs).finish()
    }
}

/// The logger of everything that is loaded, and where it writes: TensorRT keeps a pointer to it.
fn logger() -> Result<(&'static Logger, &'static Messages)> {
    static SAID: OnceLock<Messages> = OnceLock::new();
    static LOGGER: OnceLock<Logger> = OnceLock::new();
    let messages = SAID.get_or_init(Messages::default);
    match LOGGER.get() {
        Some(logger) => Ok((logger, messages)),
        None => {
            let logger = messages.logger_of_runs().map_err(|e| refused_to_load(&e.to_string(), messages))?;
            Ok((LOGGER.get_or_init(|| logger), messages))
        }
    }
}

fn refused_to_load(what: &str, messages: &Messages) -> Box<Diagnostic> {
    said("tensorrt.load", "TensorRT does not load the engine", what, messages)
        .help("the plan runs by its kernels without it")
}

/// A refusal in TensorRT's own words, or those of the bindings where it said nothing.
fn said(code: &'static str, message: &str, otherwise: &str, messages: &Messages) -> Box<Diagnostic> {
    let words = messages.errors();
    let words = if words.is_empty() { otherwise } else { &words };
    unsupported(code, format!("{message}: {words}")).shortened()
}

impl Loaded {
    /// Loads an engine on the CUDA device that is current. TensorRT for RTX compiles it to the end for this device now.
    ///
    /// The bytes must be those of an engine that was built here or authenticated: an engine is code.
    ///
    /// # Errors
    /// `tensorrt.load` with TensorRT's own words if it refuses the device or the bytes, or if there is no device.
    pub fn new(library: &Library, bytes: &[u8]) -> Result<Loaded> {
        // That there is one is what has to be known of it.
        let _ = library;
        let _alone = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        let (logger, messages) = logger()?;
        messages.clear();
        let refused = |e: trtx::Error| refused_to_load(&e.to_string(), messages);
        let mut runtime = Runtime::new(logger).map_err(refused)?;
        if bytes.is_empty() {
            return Err(refused_to_load("it has no bytes", messages));
        }
        let mut engine = runtime.deserialize_cuda_engine(bytes).map_err(refused)?;
        let (inputs, outputs) = ports(&engine)?;
        let context = engine.create_execution_context().map_err(refused)?;
        Ok(Loaded { context, _engine: engine, _runtime: runtime, inputs, outputs, messages })
    }

    /// Inputs in the engine's order.
    pub fn inputs(&self) -> &[PortInfo] {
        &self.inputs
    }

    /// Outputs in the engine's order.
    pub fn outputs(&self) -> &[PortInfo] {
        &self.outputs
    }

    /// Enqueues one run on a CUDA stream and returns before it has run. The order of bindings is free.
    ///
    /// # Errors
    /// `tensorrt.bindings` if a port has no binding, a binding no port, or type, rank or a fixed size differ;
    /// `tensorrt.shape` for sizes that the engine was not built for; `tensorrt.enqueue` with TensorRT's own words for
    /// anything else. Nothing runs then.
    ///
    /// # Safety
    /// `stream` is a stream of the device on which the engine was loaded, and the primary context of this device is current
    /// on this thread. Every address is memory of this device of at least the size that shape and type give, aligned to
    /// 256 bytes or as its allocator gave it; it stays allocated, and is neither written (inputs) nor used at all (outputs)
    /// by others, until the stream has passed the run. The engine stays loaded as long.
    #[allow(
        unsafe_code,
        reason = "TensorRT reads and writes memory by addresses that nothing here can check"
    )]
    pub unsafe fn enqueue(
        &mut self,
        inputs: &[Binding<'_>],
        outputs: &[Binding<'_>],
        stream: *mut c_void,
    ) -> Result<()> {
        check("input", &self.inputs, inputs)?;
        check("output", &self.outputs, outputs)?;
        for binding in inputs {
            let sizes: Vec<i64> = binding.shape.iter().filter_map(|d| i64::try_from(*d).ok()).collect();
            let dims = trtx::trtx_sys::Dims::from_slice(&sizes);
            self.context.set_input_shape(binding.name, &dims).map_err(|_| {
                let message = format!("the engine was not built for {} of {sizes:?}", binding.name);
                said("tensorrt.shape", &message, "the sizes are outside its profile", self.messages)
            })?;
        }
        for binding in outputs {
            self.check_output(binding)?;
        }
        for binding in inputs.iter().chain(outputs) {
            let address = binding.address as *mut c_void;
            // SAFETY: the caller says that the address is memory of the device, large enough and alive.
            unsafe { self.context.set_tensor_address(binding.name, address) }.map_err(|e| {
                said("tensorrt.enqueue", "the memory is refused", &e.to_string(), self.messages)
            })?;
        }
        // SAFETY: the caller says that the stream is one of the device; all addresses were set just now.
        unsafe { self.context.enqueue_v3(stream) }
            .map_err(|e| said("tensorrt.enqueue", "the engine does not run", &e.to_string(), self.messages))
    }

    /// Are these the sizes that an output has, now that those of the inputs are known?
    fn check_output(&self, binding: &Binding<'_>) -> Result<()> {
        let dims = self.context.tensor_shape(binding.name);
        let dims =
            dims.map_err(|e| said("tensorrt.shape", "a size is unknown", &e.to_string(), self.messages))?;
        let rank = usize::try_from(dims.nbDims).unwrap_or(0).min(MAX_DIMS);
        let given = binding.shape.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX));
        if dims.d[..rank].iter().copied().eq(given) {
            return Ok(());
        }
        let (name, shape) = (binding.name, binding.shape);
        Err(internal(
            "tensorrt.bindings",
            format!("the output {name} is {:?}, not {shape:?}", &dims.d[..rank]),
        ))
    }
}

/// Inputs and outputs of an engine; what lies on the host is refused.
fn ports(engine: &CudaEngine<'_>) -> Result<(Vec<PortInfo>, Vec<PortInfo>)> {
    let odd = |e: trtx::Error| unsupported("tensorrt.load", format!("the engine has an odd port: {e}"));
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for number in 0..engine.nb_io_tensors().map_err(odd)? {
        let name = engine.io_tensor_name(number).map_err(odd)?;
        if engine.tensor_location(&name).map_err(odd)? != TensorLocation::kDEVICE {
            return Err(unsupported("tensorrt.load", format!("the engine reads {name} from the host")));
        }
        let dtype = dtype_of(engine.tensor_data_type(&name).map_err(odd)?).ok_or_else(|| {
            unsupported("tensorrt.load", format!("{name} has a type that no value of a program has"))
        })?;
        let shape = engine.tensor_shape(&name).map_err(odd)?;
        let is_input = engine.tensor_io_mode(&name).map_err(odd)? == TensorIOMode::kINPUT;
        let port = PortInfo { name, dtype, shape };
        if is_input { inputs.push(port) } else { outputs.push(port) }
    }
    Ok((inputs, outputs))
}

/// Has every port one binding that fits it, and every binding a port?
fn check(kind: &str, ports: &[PortInfo], bindings: &[Binding<'_>]) -> Result<()> {
    let wrong = |what: String| Err(input("tensorrt.bindings", what));
    for port in ports {
        let mut bound = bindings.iter().filter(|b| b.name == port.name);
        let (Some(binding), None) = (bound.next(), bound.next()) else {
            return wrong(format!("the {kind} {} is not bound once", port.name));
        };
        if binding.dtype != port.dtype {
            let (is, given) = (port.dtype.mlir(), binding.dtype.mlir());
            return wrong(format!("the {kind} {} is of {is}, not {given}", port.name));
        }
        let fits = |(size, given): (&i64, &usize)| *size < 0 || usize::try_from(*size).ok() == Some(*given);
        let same_rank = port.shape.len() == binding.shape.len() && binding.shape.len() <= MAX_DIMS;
        if !same_rank || !port.shape.iter().zip(binding.shape).all(fits) {
            let (is, given) = (&port.shape, binding.shape);
            return wrong(format!("the {kind} {} is {is:?}, not {given:?}", port.name));
        }
        if binding.address == 0 || binding.shape.iter().any(|d| i64::try_from(*d).is_err()) {
            return wrong(format!("the {kind} {} has no memory", port.name));
        }
    }
    match bindings.iter().find(|b| ports.iter().all(|p| p.name != b.name)) {
        Some(binding) => wrong(format!("the engine has no {kind} {}", binding.name)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: &[i64]) -> PortInfo {
        PortInfo { name: name.into(), dtype: DType::F32, shape: shape.to_vec() }
    }

    fn binding<'a>(name: &'a str, shape: &'a [usize]) -> Binding<'a> {
        Binding { name, dtype: DType::F32, address: 256, shape }
    }

    #[test]
    fn bindings_fit_their_ports() {
        let ports = [port("i0", &[-1, 4]), port("i1", &[])];
        let good = [binding("i1", &[]), binding("i0", &[7, 4])];
        check("input", &ports, &good).expect("in any order");
        let narrow = Binding { dtype: DType::F16, ..good[1] };
        let nowhere = Binding { address: 0, ..good[1] };
        for (wrong, why) in [
            (vec![good[0]], "i0 is not bound"),
            (vec![good[0], good[1], good[1]], "i0 is not bound once"),
            (vec![good[0], good[1], binding("i2", &[])], "no input i2"),
            (vec![good[0], binding("i0", &[7, 5])], "not [7, 5]"),
            (vec![good[0], binding("i0", &[28])], "not [28]"),
            (vec![good[0], narrow], "of f32, not f16"),
            (vec![good[0], nowhere], "no memory"),
        ] {
            let error = check("input", &ports, &wrong).expect_err(why);
            assert!(error.code == "tensorrt.bindings" && error.message.contains(why), "{error}");
        }
    }
}
