//! `djinn-opt run --device cuda:0`: bundles on GPUs.

use crate::args::{BundleArgs, KernelMode};
use crate::engines::Parts;
use crate::run::complain;
use djinn::cuda::{Device, Driver};
use djinn::device::{Profile, Target};
use djinn::diag::{Context, Culprit, Result, input, unsupported};
use djinn::ir::Module;
use djinn::ir::data::Bytes;
use djinn::plan_data::Plan;
use djinn::runtime::{RunOptions, Runtime};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The runtime of a bundle on the devices that the options name; on the host if they are not there.
pub(crate) fn runtime(
    args: &BundleArgs,
    (plan, module): (&Arc<Plan>, &Arc<Module>),
    parts: &BTreeMap<String, Bytes>,
    options: RunOptions,
) -> Result<Runtime> {
    let host = || Runtime::host(Arc::clone(plan), Arc::clone(module), options);
    let gpus = gpus(&args.device).at(|| format!("--device {}", args.device.join(",")))?;
    if gpus.is_empty() {
        return host();
    }
    if let Err(missing) = Driver::load() {
        if missing.culprit != Culprit::Unsupported {
            return Err(missing);
        }
        complain(&format!("note: no CUDA device: {}; the host runs this\n", missing.message));
        return host();
    }
    if args.detect_races {
        return Err(input("cli.races", "races are detected on the host only").help("leave out --device"));
    }
    if matches!(args.kernels, KernelMode::Evaluator) {
        return Err(input("cli.kernels", "the evaluator runs on the host only").help("leave out --device"));
    }
    let (mut cuda, missing) = djinn::cuda_options(parts, plan)?;
    if let Some(missing) = missing {
        complain(&format!("note: engines do not run: {}; the plan runs by its kernels\n", missing.message));
    }
    cuda.gpus = gpus;
    cuda.graphs &= !args.no_graphs;
    cuda.timed = args.trace.is_some() || args.profile.is_some();
    Runtime::cuda(Arc::clone(plan), Arc::clone(module), options, cuda)
}

/// Adds the kernels of a plan for GPUs to the parts of its bundle.
pub(crate) fn add_kernels(target: &Target, module: &Module, plan: &Plan, parts: &mut Parts) -> Result<()> {
    let capabilities = djinn::compute_capabilities(target);
    let made = djinn::compile_kernels(module, plan, &capabilities)?;
    let bytes: usize = made.files.values().map(|b| b.as_slice().len()).sum();
    let chips: Vec<String> = capabilities.iter().map(|c| format!("sm_{c}")).collect();
    let refused: usize = made.index.refused.values().sum();
    let rest = if refused == 0 { String::new() } else { format!("; {refused} operations have none") };
    let summary = format!(
        "kernels: {} for {}, {:.1} MB of PTX{rest}\n",
        made.index.kernels,
        chips.join(" and "),
        bytes as f64 / 1e6
    );
    parts.summary.get_or_insert_default().push_str(&summary);
    parts.warnings.extend(made.problems.iter().map(|problem| format!("warning: {problem}\n")));
    parts.files.extend(made.parts());
    Ok(())
}

/// The device profile of a GPU of this machine.
pub(crate) fn profile(name: &str) -> Result<Profile> {
    let number = gpus(&[name.to_owned()])?.first().copied().unwrap_or(0);
    let gpu = Device::open(&Driver::load()?, number)?;
    Profile::of_gpu(gpu.name()).cloned().ok_or_else(|| {
        unsupported("cli.device", format!("there is no device profile for '{}'", gpu.name()))
            .help("name the profile that is nearest to it, or the .toml file of one of its own")
    })
}

/// The numbers of the named GPUs; none for the host.
fn gpus(names: &[String]) -> Result<Vec<usize>> {
    if let [host] = names
        && host.trim() == "host"
    {
        return Ok(Vec::new());
    }
    let number = |name: &String| {
        let digits = name.trim().strip_prefix("cuda:");
        digits.and_then(|d| d.parse::<u16>().ok()).map(usize::from).ok_or_else(|| {
            input("cli.device", format!("'{name}' is no device to run on"))
                .help("write host, cuda:0, or several GPUs as cuda:0,cuda:1")
        })
    };
    names.iter().map(number).collect()
}
