//! From region to engine.

use crate::library::Library;
use crate::log::Messages;
use crate::lower;
use crate::network::{Net, Val, dtype_of, refused};
use crate::profile::Profile;
use crate::region::Region;
use djinn_diag::{Diagnostic, Result, unsupported};
use djinn_ir::{TensorType, ValueId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use trtx::{Builder, BuilderConfig, BuilderFlag, ComputeCapability, MemoryPoolType, NetworkDefinition};

/// Bytes of scratch memory that an engine may take while it runs, unless said otherwise.
const DEFAULT_WORKSPACE: usize = 1 << 30;

/// One build at a time: TensorRT-RTX 1.7 keeps the GPUs that it builds for in globals, and builds for different ones at
/// the same time fail ("Target SM 80 is not found in the accelerator list").
static BUILDING: Mutex<()> = Mutex::new(());

/// How engines are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildOptions {
    /// Compute capabilities, such as 89; none leaves the choice to TensorRT-RTX, whose engines then run on every GPU that
    /// it knows and are compiled to the end there.
    pub compute_capabilities: Vec<u32>,
    /// Scratch memory at run time, bytes.
    pub workspace_bytes: usize,
    /// May f32 products round their operands to 10 bits of mantissa (TF32)?
    pub tf32: bool,
}

impl Default for BuildOptions {
    fn default() -> Self {
        BuildOptions { compute_capabilities: Vec::new(), workspace_bytes: DEFAULT_WORKSPACE, tf32: false }
    }
}

impl BuildOptions {
    /// A word for keys of caches.
    pub fn name(&self) -> String {
        let capabilities: Vec<String> = self.compute_capabilities.iter().map(u32::to_string).collect();
        format!("sm[{}] workspace {} tf32 {}", capabilities.join(","), self.workspace_bytes, self.tf32)
    }
}

/// An input or output of an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Name in the engine and in the region.
    pub name: String,
    /// Its type; symbolic sizes are those of the region.
    pub ty: TensorType,
}

/// A layer of the network, for reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// `op12.matmul:3`: the operation of the region that it is made for, and its number.
    pub name: String,
    /// TensorRT's word for it.
    pub kind: String,
    /// Type and sizes of the first result, such as `f32[?,64]`; `?` for sizes known at run time.
    pub result: String,
}

impl Layer {
    /// Number of the operation of the region that it is made for; none for what stands for results alone.
    pub fn operation(&self) -> Option<u32> {
        let digits = self.name.strip_prefix("op")?;
        digits.split_once('.')?.0.parse().ok()
    }
}

/// An engine: serialized, with what is known of it.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The bytes to load.
    pub bytes: Vec<u8>,
    /// Inputs in the order of the region's arguments. Those that no output depends on are not among them.
    pub inputs: Vec<Port>,
    /// Outputs in the order of the region's results.
    pub outputs: Vec<Port>,
    /// Layers of the network that it was built from.
    pub layers: Vec<Layer>,
    /// Warnings of the builder.
    pub messages: Vec<Diagnostic>,
}

/// Builds the engine of a region.
///
/// # Errors
/// `tensorrt.operation` for what no layer means exactly, `tensorrt.layer`, `tensorrt.type` and `tensorrt.build` for what
/// TensorRT refuses, with its own words, `tensorrt.capability` for a GPU that it does not know.
pub fn build(library: &Library, region: &Region, options: &BuildOptions) -> Result<Engine> {
    let _ = library;
    let _alone = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let messages = Messages::default();
    let logger = messages.logger().map_err(|e| refused(&e))?;
    let explain = |mut error: Box<Diagnostic>| {
        let said = messages.errors();
        if !said.is_empty() {
            error.message = format!("{}: {said}", error.message);
        }
        error
    };
    let mut builder = Builder::new(&logger).map_err(|e| refused(&e))?;
    let network = builder.create_network(0).map_err(|e| refused(&e))?;
    let mut net = Net::new(network, region.module.symbols.clone());
    let (inputs, outputs) = construct(&mut net, region).map_err(explain)?;
    let mut config = configure(&mut builder, options)?;
    profile(&mut builder, &mut config, region).map_err(explain)?;
    let layers = layers(&net.inner);
    let bytes = builder.build_serialized_network(&mut net.inner, &mut config);
    let bytes = bytes.map_err(|_| explain(unsupported("tensorrt.build", "TensorRT builds no engine")))?;
    Ok(Engine { bytes: bytes.to_vec(), inputs, outputs, layers, messages: messages.diagnostics() })
}

/// Arguments, layers and results; gives the ports.
fn construct(net: &mut Net<'_>, region: &Region) -> Result<(Vec<Port>, Vec<Port>)> {
    let graph = region.graph();
    let mut values: BTreeMap<ValueId, Val> = BTreeMap::new();
    let mut inputs = Vec::new();
    for (value, argument) in graph.arguments.iter().zip(&region.arguments) {
        let ty = graph.ty(*value);
        let input = net.input(&argument.name, ty)?;
        net.note_sizes(&input);
        values.insert(*value, input);
        inputs.push(Port { name: argument.name.to_string(), ty: ty.clone() });
    }
    lower::body(net, graph, &mut values)?;
    let mut marked = BTreeSet::new();
    let mut outputs = Vec::new();
    net.label = "results".into();
    for (number, result) in graph.results.iter().enumerate() {
        let mut value = values.get(result).cloned().ok_or_else(|| {
            djinn_diag::internal("tensorrt.results", format!("result {number} is not in the network"))
        })?;
        let name = value.tensor.name(&net.inner).map_err(|e| refused(&e))?;
        // An input cannot be an output, and no tensor can be two of them.
        if value.tensor.is_network_input(&net.inner) || !marked.insert(name) {
            value = net.identity(&value)?;
        }
        let name = format!("o{number}");
        marked.insert(name.clone());
        value.tensor.set_name(&mut net.inner, &name).map_err(|e| refused(&e))?;
        net.inner.mark_output(&value.tensor);
        outputs.push(Port { name, ty: graph.ty(*result).clone() });
    }
    Ok((inputs, outputs))
}

fn configure<'b>(builder: &mut Builder<'b>, options: &BuildOptions) -> Result<BuilderConfig<'b>> {
    let mut config = builder.create_config().map_err(|e| refused(&e))?;
    config.set_memory_pool_limit(MemoryPoolType::kWORKSPACE, options.workspace_bytes);
    match options.tf32 {
        true => config.set_flag(BuilderFlag::kTF32),
        false => config.clear_flag(BuilderFlag::kTF32),
    }
    let capabilities: Vec<ComputeCapability> =
        options.compute_capabilities.iter().map(|c| capability(*c)).collect::<Result<_>>()?;
    if !capabilities.is_empty() {
        config.set_nb_compute_capabilities(capabilities.len() as i32).map_err(|e| refused(&e))?;
    }
    for (number, capability) in (0..).zip(capabilities) {
        config.set_compute_capability(capability, number).map_err(|e| refused(&e))?;
    }
    Ok(config)
}

/// The compute capabilities that TensorRT-RTX 1.7 knows (`NvInfer.h`, `ComputeCapability`).
fn capability(number: u32) -> Result<ComputeCapability> {
    known_capability(number).ok_or_else(|| {
        let message = format!("TensorRT-RTX does not build for compute capability {number}");
        unsupported("tensorrt.capability", message)
            .help("leave the capability open: then the engine is compiled to the end where it runs")
    })
}

/// Can engines be built for this compute capability by name, such as 89? For others it is left open.
pub fn builds_for(capability: u32) -> bool {
    known_capability(capability).is_some()
}

fn known_capability(number: u32) -> Option<ComputeCapability> {
    Some(match number {
        75 => ComputeCapability::kSM75,
        80 => ComputeCapability::kSM80,
        86 => ComputeCapability::kSM86,
        89 => ComputeCapability::kSM89,
        120 => ComputeCapability::kSM120,
        _ => return None,
    })
}

/// Sizes of the inputs that have symbolic ones.
fn profile<'b>(builder: &mut Builder<'b>, config: &mut BuilderConfig<'b>, region: &Region) -> Result<()> {
    use trtx::OptProfileSelector as S;
    if region.symbols.is_empty() {
        return Ok(());
    }
    let sizes = Profile::of(region);
    let mut profile = builder.creata_optimization_profile().map_err(|e| refused(&e))?;
    for (value, argument) in region.graph().arguments.iter().zip(&region.arguments) {
        let shape = &region.graph().ty(*value).shape;
        if shape.iter().all(|d| d.as_const().is_some()) {
            continue;
        }
        let dims = sizes.dims(shape)?;
        for (select, dims) in [S::kMIN, S::kOPT, S::kMAX].into_iter().zip(&dims) {
            let dims = trtx::trtx_sys::Dims::from_slice(dims);
            profile.set_dimensions(&argument.name, select, &dims).map_err(|e| refused(&e))?;
        }
    }
    config.add_optimization_profile(&mut profile).map_err(|e| refused(&e))?;
    Ok(())
}

/// What the network consists of.
fn layers(network: &NetworkDefinition<'_>) -> Vec<Layer> {
    let describe = |number: i32| {
        let layer = network.layer(number).ok()?;
        let tensor = layer.output(network, 0).ok();
        let result = tensor.map(|t| {
            let dims = t.dimensions(network).unwrap_or_default();
            let dtype = dtype_of(t.data_type(network));
            let sizes = dims.iter().map(|d| if *d < 0 { "?".to_owned() } else { d.to_string() });
            let sizes: Vec<String> = sizes.collect();
            format!("{}[{}]", dtype.map_or("other", djinn_ir::DType::mlir), sizes.join(","))
        });
        let kind = format!("{:?}", layer.layer_type_dynamic());
        Some(Layer {
            name: layer.name(network),
            kind: kind.trim_start_matches('k').to_lowercase(),
            result: result.unwrap_or_default(),
        })
    };
    (0..network.nb_layers()).filter_map(describe).collect()
}
