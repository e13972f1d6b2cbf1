//! From the options of the command line to a request for a plan, and the forms in which plans are written.

use crate::args::{Emit, PlanArgs, PlanObjective};
use djinn::cost::{CostTable, own_costs};
use djinn::device::{Objective, Profile, Target, Topology};
use djinn::diag::{Context, Result, input};
use djinn::ir::Module;
use djinn::ir::data::Bytes;
use djinn::plan_data::{self, Plan};
use djinn::{Bundle, OptimizeOptions, Outcome, PlanRequest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// The report in a bundle.
const REPORT: &str = "report.html";

/// The device that plans are for when none is named.
const DEFAULT_DEVICE: &str = "host";

/// The request that the options make.
pub(crate) fn request(args: &PlanArgs, optimize: OptimizeOptions) -> Result<PlanRequest> {
    let mut request = PlanRequest::new(target(args)?);
    for bind in &args.bind {
        let (symbol, ranges) = sizes(bind).at(|| format!("--bind {bind}"))?;
        request.sizes.entry(symbol).or_default().extend(ranges);
    }
    for pin in &args.pin {
        let (scope, device) = pin.split_once('=').ok_or_else(|| {
            input("cli.pin", "this pins nothing").at(format!("--pin {pin}")).help("write SCOPE=DEVICE")
        })?;
        request.pins.push((scope.trim().to_owned(), device.trim().to_owned()));
    }
    request.phase.clone_from(&args.phase);
    request.copy_caches = args.copy_caches;
    request.stream_weights = args.stream_weights;
    request.optimize = optimize;
    Ok(request)
}

/// The devices that passes may know of, if any were named.
pub(crate) fn target_if_named(args: &PlanArgs) -> Result<Option<Target>> {
    if args.device.is_empty() && args.topology.is_none() {
        return Ok(None);
    }
    let mut target = target(args)?;
    for bind in &args.bind {
        let (symbol, ranges) = sizes(bind).at(|| format!("--bind {bind}"))?;
        target.sizes.insert(symbol, ranges.iter().map(|(_, most)| *most).max().unwrap_or(1));
    }
    Ok(Some(target))
}

pub(crate) fn target(args: &PlanArgs) -> Result<Target> {
    let mut target = Target::new(topology(args)?);
    target.objective = match args.objective {
        PlanObjective::Latency => Objective::Latency,
        PlanObjective::Throughput => Objective::Throughput,
        PlanObjective::Memory => Objective::Memory,
    };
    if let Some(path) = &args.costs {
        let text = read_text(path)?;
        let table = CostTable::from_toml(&text, &path.display().to_string())?;
        target.costs = Some(own_costs(&text, vec![Arc::new(table)]));
    }
    if let Some(limit) = &args.memory_limit {
        target.memory_limit = Some(bytes(limit).at(|| format!("--memory-limit {limit}"))?);
    }
    if let Some(most) = args.max_streams {
        target.max_streams = most;
    }
    Ok(target)
}

/// The topology of the file, or the named devices in one machine.
fn topology(args: &PlanArgs) -> Result<Topology> {
    if let Some(path) = &args.topology {
        return Topology::parse(&read_text(path)?, &path.display().to_string());
    }
    let mut text = String::new();
    let names: Vec<&str> = args.device.iter().map(|name| name.trim()).collect();
    for name in if names.is_empty() { vec![DEFAULT_DEVICE] } else { names } {
        let profile = profile(name)?;
        if args.device.len() < 2 {
            return Ok(Topology::single(&profile));
        }
        if name.ends_with(".toml") {
            return Err(input(
                "cli.device",
                "several devices with a profile of their own need a topology file",
            )
            .at(format!("--device {name}"))
            .help("--topology FILE with the profiles as [[profile]] and the devices as [[device]]"));
        }
        text.push_str(&format!("[[device]]\nprofile = {:?}\n", profile.name));
    }
    Topology::parse(&text, "--device")
}

/// A built-in profile by name, that of a GPU of this machine (`cuda:0`), or the profile of a file.
pub(crate) fn profile(name: &str) -> Result<Profile> {
    if name.starts_with("cuda:") {
        return crate::gpu::profile(name).at(|| format!("--device {name}"));
    }
    if !name.ends_with(".toml") {
        return Profile::named(name).cloned().at(|| "--device");
    }
    Profile::from_toml(&read_text(Path::new(name))?, name)
}

/// Reads a small file of text.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|e| input("file.read", e.to_string()))
        .at(|| path.display().to_string())
}

/// `s0=128`, `s0=1..128`, `s0=1..128,129..2048`: ends belong to their range.
fn sizes(text: &str) -> Result<(String, Vec<(i64, i64)>)> {
    let malformed = || {
        input("cli.bind", "this binds no symbol")
            .help("write SYMBOL=SIZE, SYMBOL=LEAST..MOST, or several such ranges separated by commas")
    };
    let number = |text: &str| text.trim().parse::<i64>().ok().filter(|n| *n >= 0);
    let (symbol, ranges) = text.split_once('=').ok_or_else(malformed)?;
    let range = |text: &str| {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let range = number(least).zip(number(most)).ok_or_else(malformed)?;
        if range.0 > range.1 {
            return Err(input("cli.bind", format!("the range {text} is empty")));
        }
        Ok(range)
    };
    let ranges = ranges.split(',').map(range).collect::<Result<Vec<_>>>()?;
    Ok((symbol.trim().to_owned(), ranges))
}

/// `24GB`, `512MiB`, `1000`: a number of bytes.
fn bytes(text: &str) -> Result<u64> {
    let malformed = || {
        input("cli.bytes", "this is no size of memory")
            .help("write a number and B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.replace('_', "").parse().map_err(|_| malformed())?;
    let scale = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(malformed()),
    };
    let bytes = number * scale;
    if bytes.is_finite() && (1.0..9e18).contains(&bytes) { Ok(bytes as u64) } else { Err(malformed()) }
}

/// What a plan is written with.
pub(crate) struct Written<'a> {
    /// The plan.
    pub(crate) plan: &'a Plan,
    /// The program as planned; absent if the plan came from a cache.
    pub(crate) module: Option<&'a Module>,
    /// The program as read.
    pub(crate) original: &'a Module,
    /// What the passes did, if they ran.
    pub(crate) outcome: Option<&'a Outcome>,
    /// What it is called.
    pub(crate) title: &'a str,
    /// Measured times to show.
    pub(crate) profile: Option<&'a Path>,
    /// What a bundle carries beside it.
    pub(crate) parts: BTreeMap<String, Bytes>,
    /// Where the weights of a bundle are.
    pub(crate) weights: djinn::Weights,
}

/// Does this form of a plan need the program beside it?
pub(crate) fn needs_program(emit: Emit) -> bool {
    matches!(emit, Emit::Bundle | Emit::Report)
}

/// Writes a plan in one of its forms.
pub(crate) fn emit(emit: Emit, written: &Written<'_>, output: Option<&Path>) -> Result<()> {
    let plan = written.plan;
    let content: Vec<u8> = match emit {
        Emit::Bundle => {
            let path = output.ok_or_else(|| {
                input("cli.output", "--emit bundle needs -o FOLDER").help("a bundle is a folder of files")
            })?;
            let module = written.module.ok_or_else(|| djinn::diag::internal("cli.bundle", "no program"))?;
            let mut bundle = Bundle::new(module.clone(), plan.clone());
            bundle.parts = written.parts.clone();
            bundle.parts.insert(REPORT.to_owned(), report(written)?.into_bytes().into());
            return crate::weights::write(path, &bundle, &written.weights);
        }
        Emit::Plan if output.is_some_and(|p| p.extension().is_some_and(|e| e == "bin")) => {
            plan_data::to_binary(plan)?
        }
        Emit::Plan => plan_data::to_json(plan)?.into_bytes(),
        Emit::PlanText => plan_data::text(plan).into_bytes(),
        Emit::Trace => trace(plan)?.into_bytes(),
        Emit::Report => report(written)?.into_bytes(),
        Emit::Srg | Emit::Ir | Emit::Onnx | Emit::Dot => {
            return Err(djinn::diag::internal("cli.emit", "this is no form of a plan"));
        }
    };
    match output {
        Some(path) => djinn::write_atomically(path, &mut |out| out.write_all(&content)),
        None => crate::run::print_text(&String::from_utf8_lossy(&content)),
    }
}

/// The simulated timelines of the plan's entries.
fn trace(plan: &Plan) -> Result<String> {
    let timelines = (0..plan.entries.len()).map(|entry| plan_data::simulate(plan, entry));
    Ok(plan_data::traces_json(&timelines.collect::<Result<Vec<_>>>()?, plan))
}

fn report(written: &Written<'_>) -> Result<String> {
    let operations = |module: &Module| -> Vec<(String, u64)> {
        let stats = djinn::stats(module);
        stats.operations.iter().map(|(name, n)| ((*name).to_owned(), *n as u64)).collect()
    };
    let mut rewrites: BTreeMap<String, u64> = BTreeMap::new();
    let statistics = written.outcome.map(|o| o.statistics.iter()).into_iter().flatten();
    for (pass, name, count) in statistics {
        let sum = rewrites.entry(format!("{pass}: {name}")).or_default();
        *sum = sum.saturating_add(count);
    }
    let remarks: Vec<String> =
        written.outcome.map(|o| o.remarks.iter().map(ToString::to_string).collect()).unwrap_or_default();
    let measured = match (written.profile, written.module) {
        (Some(path), Some(module)) => {
            let profile = crate::profile::read(path)?;
            let shown = djinn::profile::shown(&profile, written.plan, module);
            Some(shown.at(|| path.display().to_string())?)
        }
        _ => None,
    };
    let engines = djinn::built_engines(&written.parts, written.plan)?;
    Ok(djinn::report::html(&djinn::report::Page {
        title: written.title,
        plan: written.plan,
        module: written.module,
        before: &operations(written.original),
        after: &written.module.map(operations).unwrap_or_default(),
        rewrites: &rewrites.into_iter().collect::<Vec<_>>(),
        remarks: &remarks,
        engines: engines.as_ref(),
        measured: measured.as_ref(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_bytes() {
        assert_eq!(sizes("s0=128").expect("one size"), ("s0".into(), vec![(128, 128)]));
        assert_eq!(sizes("s0=1..8,9..16").expect("ranges"), ("s0".into(), vec![(1, 8), (9, 16)]));
        for wrong in ["s0", "s0=", "s0=a", "s0=-1", "s0=8..1", "s0=1..", "s0=1,,2"] {
            assert_eq!(sizes(wrong).expect_err(wrong).code, "cli.bind");
        }
        assert_eq!(bytes("24GB").expect("decimal"), 24_000_000_000);
        assert_eq!(bytes("1.5KiB").expect("binary"), 1536);
        assert_eq!(bytes("1_000").expect("bytes"), 1000);
        for wrong in ["", "GB", "1e9", "-1", "1 parsec", "99999999999TB", "0"] {
            assert_eq!(bytes(wrong).expect_err(wrong).code, "cli.bytes");
        }
    }
}
