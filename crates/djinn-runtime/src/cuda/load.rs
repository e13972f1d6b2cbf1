//! Loading a plan on GPUs: engines, and kernels where there are none.

use super::code::{GpuCode, GpuTexts, compile, entries, kernel_of, load};
use super::engine::{EngineUnit, LoadedEngines};
use super::machine::{CudaMachine, CudaOptions};
use super::prepare::{BoundEngine, CudaEntry, CudaKernel, Steps};
use crate::code::EntryCode;
use crate::compiled::{build, plan_steps};
use crate::jit::KernelReport;
use crate::machine::shadowed;
use crate::resolve::wrong;
use djinn_cuda::Function;
use djinn_diag::{Context, Result};
use djinn_ir::Module;
use djinn_plan::{Granularity, Plan};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

impl CudaMachine {
    /// Loads engines, and compiles and loads the kernels that run where there are none.
    pub(super) fn compile(
        &self,
        (plan, program): (&Plan, &Module),
        code: &[EntryCode],
        cuda: &CudaOptions,
        report: &mut KernelReport,
    ) -> Result<Vec<Option<CudaEntry>>> {
        let start = Instant::now();
        let engines = self.load_engines((plan, program), code, cuda, report)?;
        // An entry of engines is worth its memory if it has all of them.
        let has_engines = |entry: usize| {
            let mut wanted = plan.entries[entry].kernels.iter().zip(&engines[entry]);
            plan.entries[entry].granularity == Granularity::Engines
                && wanted.all(|(kernel, engine)| kernel.engine.is_none() || engine.is_some())
        };
        // Of two entries for the same sizes: that of engines if it has all of them, else that of kernels.
        let shadowed = shadowed(plan, |entry| match plan.entries[entry].granularity {
            _ if has_engines(entry) => 2,
            Granularity::Kernels => 1,
            Granularity::Engines => 0,
        });
        let mut texts = GpuTexts::default();
        let (has_blas, nothing) = (!self.blas.is_empty(), BTreeMap::new());
        let mut planned = Vec::with_capacity(code.len());
        for ((entry, engines), shadowed) in code.iter().zip(&engines).zip(&shadowed) {
            let graph = &entry.table.function(program).graph;
            let mut lowering = GpuCode { texts: &mut texts, has_blas, functions: &nothing, graph };
            let mut steps = Vec::with_capacity(entry.kernels.len());
            for (kernel, engine) in entry.kernels.iter().zip(engines) {
                let runs = engine.is_none() && !shadowed;
                steps.push(runs.then(|| plan_steps(graph, kernel, true, &mut lowering)));
            }
            planned.push(steps);
        }
        let functions = self.load_kernels(&texts, &cuda.ptx, report)?;
        let mut out = Vec::with_capacity(code.len());
        for (number, ((entry, steps), engines)) in code.iter().zip(planned).zip(engines).enumerate() {
            if shadowed[number] {
                out.push(None);
                continue;
            }
            let graph = &entry.table.function(program).graph;
            let places = streams_of_kernels(plan, number, entry);
            let mut kernels = Vec::with_capacity(entry.kernels.len());
            for (k, ((kernel, steps), engine)) in entry.kernels.iter().zip(steps).zip(engines).enumerate() {
                let functions = functions.get(&self.gpu(places[k].0).ordinal()).unwrap_or(&nothing);
                let lowering = GpuCode { texts: &mut texts, has_blas, functions, graph };
                let steps = steps.map(|steps| {
                    let compiled = build(graph, kernel, steps, &lowering, report);
                    compiled
                        .ok_or_else(|| wrong(format!("the operations of kernel {k} do not hold together")))
                });
                kernels.push(CudaKernel { steps: steps.transpose()?.map(Steps::new), engine });
            }
            let products: BTreeSet<usize> =
                kernels.iter().zip(&places).filter(|(k, _)| k.has_products()).map(|(_, p)| p.1).collect();
            let made = CudaEntry::new(&plan.entries[number], entry, kernels, (&self.devices, &self.first));
            let made = made.and_then(|made| made.with_blas(&products));
            out.push(Some(made.at(|| format!("entry {number}"))?));
        }
        report.refused = std::mem::take(&mut texts.refused);
        report.compile_seconds = start.elapsed().as_secs_f64();
        Ok(out)
    }

    /// By entry and kernel: the engine in its place.
    fn load_engines(
        &self,
        (plan, program): (&Plan, &Module),
        code: &[EntryCode],
        cuda: &CudaOptions,
        report: &mut KernelReport,
    ) -> Result<Vec<Vec<Option<BoundEngine>>>> {
        let units: BTreeMap<(usize, usize), &EngineUnit> =
            cuda.engines.iter().map(|unit| ((unit.entry, unit.kernel), unit)).collect();
        let mut loaded = LoadedEngines::default();
        let mut all = Vec::with_capacity(code.len());
        for (number, entry) in code.iter().enumerate() {
            let places = streams_of_kernels(plan, number, entry);
            let mut engines = Vec::with_capacity(entry.kernels.len());
            for (k, (kernel, (device, stream))) in entry.kernels.iter().zip(places).enumerate() {
                let unit = units.get(&(number, k));
                let execution = unit
                    .map(|unit| loaded.get(unit, self.gpu(device), stream, report))
                    .transpose()?
                    .flatten();
                let value = |v| entry.table.value(program, v);
                let bind = |(unit, execution)| BoundEngine::new((unit, execution), kernel, &value);
                let engine = unit.copied().zip(execution).map(bind).transpose()?;
                report.engines += usize::from(engine.is_some());
                engines.push(engine);
            }
            all.push(engines);
        }
        Ok(all)
    }

    /// Kernels by GPU and name: those of the modules at hand, and others compiled now.
    fn load_kernels(
        &self,
        texts: &GpuTexts,
        ptx: &[(u32, String)],
        report: &mut KernelReport,
    ) -> Result<BTreeMap<usize, BTreeMap<String, Function>>> {
        let mut functions = BTreeMap::new();
        for (ordinal, device) in self.gpus() {
            let chip = format!("sm_{}", device.compute_capability());
            let wanted = best(ptx, device.compute_capability(), texts);
            wanted.iter().try_for_each(|ptx| texts.check(ptx))?;
            let known = wanted.iter().flat_map(|ptx| entries(ptx)).map(kernel_of).collect();
            let (made, problems) = compile(&texts.texts, &known, &chip);
            report.problems.extend(problems.into_iter().map(Box::new));
            let modules: Vec<String> = wanted.into_iter().cloned().chain(made).collect();
            functions.insert(ordinal, load(&device, &modules)?);
        }
        report.functions = functions.values().map(BTreeMap::len).sum();
        Ok(functions)
    }
}

/// The modules for the highest compute capability that a GPU has, those with a kernel that is needed: PTX runs on every
/// later GPU (CUDA C++ Programming Guide, "PTX Compatibility").
fn best<'p>(ptx: &'p [(u32, String)], capability: u32, texts: &GpuTexts) -> Vec<&'p String> {
    let usable = ptx.iter().filter(|(of, _)| *of <= capability);
    let highest = usable.clone().map(|(of, _)| *of).max();
    usable.filter(|(of, ptx)| Some(*of) == highest && is_wanted(ptx, texts)).map(|(_, ptx)| ptx).collect()
}

/// Has a PTX module any kernel that is needed?
fn is_wanted(ptx: &str, texts: &GpuTexts) -> bool {
    entries(ptx).any(|name| texts.texts.contains_key(kernel_of(name)))
}

/// The device and the stream of each kernel of an entry.
fn streams_of_kernels(plan: &Plan, number: usize, entry: &EntryCode) -> Vec<(usize, usize)> {
    let mut places = vec![(0, 0); entry.kernels.len()];
    for command in &plan.entries[number].commands {
        if let djinn_plan::Action::Launch { kernel } = command.action
            && let Some(stream) = plan.entries[number].streams.get(command.stream.index())
            && let Some(place) = places.get_mut(kernel.index())
        {
            *place = (stream.device.index(), command.stream.index());
        }
    }
    places
}
