//! Runs pipelines.

use crate::{Pass, PassContext, PassRegistry, Pipeline, PipelineItem, Reproducer};
use djinn_diag::{Context, Diagnostic, Result, internal, unsupported};
use djinn_ir::{Function, Module, verify};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What happens during a run, as told to the hook of [`PassManager::on_event`].
#[derive(Debug)]
pub enum Event<'a> {
    /// A pass is about to run on this module.
    Before {
        /// The pass.
        pass: &'a str,
        /// Its number among all passes of the run, from 0.
        index: usize,
        /// The module before.
        module: &'a Module,
    },
    /// A pass has run and its result was verified.
    After {
        /// The pass.
        pass: &'a str,
        /// Its number among all passes of the run, from 0.
        index: usize,
        /// The module afterwards.
        module: &'a Module,
    },
    /// A pass failed, or its result was refused by the verifier.
    Failed {
        /// The pass.
        pass: &'a str,
        /// Its number among all passes of the run, from 0.
        index: usize,
        /// Why.
        error: &'a Diagnostic,
        /// What runs it again; `None` unless [`PassManager::reproducers`] asked for it.
        reproducer: Option<&'a Reproducer>,
    },
}

/// What one pass did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassRun {
    /// The pass.
    pub pass: String,
    /// Time by the caller's clock, in its unit; 0 without a clock.
    pub time: u64,
    /// Fuel used.
    pub fuel: u64,
    /// Remarks made.
    pub remarks: usize,
}

/// What a run did, pass by pass. Counters are in the context's statistics.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunReport {
    /// Passes in order; a pass on functions stands there once for every function.
    pub passes: Vec<PassRun>,
}

enum Stage {
    Pass(Box<dyn Pass>, Pipeline),
    Functions(Vec<Stage>),
}

type Hook<'h> = Box<dyn FnMut(&Event<'_>) + 'h>;
type Clock<'h> = Box<dyn FnMut() -> u64 + 'h>;

/// Runs the passes of one pipeline.
pub struct PassManager<'h> {
    stages: Vec<Stage>,
    settings: Settings<'h>,
}

struct Settings<'h> {
    verify_each: bool,
    reproducers: bool,
    hook: Option<Hook<'h>>,
    clock: Option<Clock<'h>>,
}

impl<'h> PassManager<'h> {
    /// Makes all passes of the pipeline.
    ///
    /// # Errors
    /// `pipeline.pass` and `pipeline.option` for passes and options that do not exist.
    pub fn new(registry: &PassRegistry, pipeline: &Pipeline) -> Result<Self> {
        let stages = stages(registry, &pipeline.items)?;
        let settings = Settings { verify_each: true, reproducers: true, hook: None, clock: None };
        Ok(PassManager { stages, settings })
    }

    /// Verify the module before the first and after every pass? On unless switched off.
    #[must_use]
    pub fn verify_each(mut self, on: bool) -> Self {
        self.settings.verify_each = on;
        self
    }

    /// Keep a copy of the module before every pass (weights are shared), from which a failure makes a reproducer? On
    /// unless switched off.
    #[must_use]
    pub fn reproducers(mut self, on: bool) -> Self {
        self.settings.reproducers = on;
        self
    }

    /// Calls `hook` before and after every pass and on failure.
    #[must_use]
    pub fn on_event(mut self, hook: impl FnMut(&Event<'_>) + 'h) -> Self {
        self.settings.hook = Some(Box::new(hook));
        self
    }

    /// Takes times from `clock`.
    #[must_use]
    pub fn clock(mut self, clock: impl FnMut() -> u64 + 'h) -> Self {
        self.settings.clock = Some(Box::new(clock));
        self
    }

    /// Runs the passes in order.
    ///
    /// # Errors
    /// The first failure of a pass or of the verifier, with the pass as its place. A pass that panics gives the
    /// internal diagnostic `pass.panic`.
    pub fn run(&mut self, module: &mut Module, context: &mut PassContext) -> Result<RunReport> {
        if self.settings.verify_each {
            verify::verify(module).at(|| "before the first pass")?;
        }
        let mut report = RunReport::default();
        let result = self.settings.run(&self.stages, module, context, &mut report);
        context.pass.clear();
        result.map(|()| report)
    }
}

fn stages(registry: &PassRegistry, items: &[PipelineItem]) -> Result<Vec<Stage>> {
    let stage = |item: &PipelineItem| match item {
        PipelineItem::Pass { name, options } => {
            let pass = registry.make(name, options)?;
            Ok(Stage::Pass(pass, Pipeline::of_pass(name, options.clone())))
        }
        PipelineItem::Functions(inner) => stages(registry, inner).map(Stage::Functions),
    };
    items.iter().map(stage).collect()
}

impl Settings<'_> {
    fn run(
        &mut self,
        stages: &[Stage],
        module: &mut Module,
        context: &mut PassContext,
        report: &mut RunReport,
    ) -> Result<()> {
        for stage in stages {
            match stage {
                Stage::Pass(pass, pipeline) => self.pass(&**pass, pipeline, module, context, report)?,
                Stage::Functions(inner) => self.functions(inner, module, context, report)?,
            }
        }
        Ok(())
    }

    /// Runs passes on modules of one function each, which share everything else.
    fn functions(
        &mut self,
        stages: &[Stage],
        module: &mut Module,
        context: &mut PassContext,
        report: &mut RunReport,
    ) -> Result<()> {
        if module.functions.iter().any(Function::is_private) {
            let message = "passes on single functions need a module without private functions";
            return Err(unsupported("pipeline.functions", message).help("run the pass 'inline' before"));
        }
        let mut pending = std::mem::take(&mut module.functions).into_iter();
        let mut done = Vec::new();
        let mut result = Ok(());
        while result.is_ok() {
            let Some(function) = pending.next() else { break };
            module.functions.push(function);
            result = self.run(stages, module, context, report);
            done.append(&mut module.functions);
        }
        done.extend(pending);
        module.functions = done;
        result?;
        if self.verify_each { verify::verify(module).at(|| "after passes on functions") } else { Ok(()) }
    }

    fn pass(
        &mut self,
        pass: &dyn Pass,
        pipeline: &Pipeline,
        module: &mut Module,
        context: &mut PassContext,
        report: &mut RunReport,
    ) -> Result<()> {
        let (name, index) = (pass.name(), report.passes.len());
        context.pass = name.to_string();
        self.tell(&Event::Before { pass: name, index, module });
        let backup = self.reproducers.then(|| (module.clone(), context.clone()));
        let (fuel, remarks) = (context.fuel.used(), context.remarks.len());
        let start = self.now();
        let run = catch_unwind(AssertUnwindSafe(|| pass.run(module, context)));
        let time = self.now().saturating_sub(start);
        let result = run.unwrap_or_else(|panic| Err(internal("pass.panic", panic_message(&*panic))));
        let result = match result {
            Ok(()) if self.verify_each => verify::verify(module).at(|| "the result"),
            other => other,
        };
        if let Err(error) = result.at(|| format!("pass '{name}' (number {})", index + 1)) {
            let reproducer =
                backup.map(|(module, context)| Reproducer::new(pipeline.clone(), &module, &context));
            let reproducer = reproducer.as_ref();
            self.tell(&Event::Failed { pass: name, index, error: &error, reproducer });
            return Err(error);
        }
        self.tell(&Event::After { pass: name, index, module });
        report.passes.push(PassRun {
            pass: name.to_string(),
            time,
            fuel: context.fuel.used() - fuel,
            remarks: context.remarks.len().saturating_sub(remarks),
        });
        Ok(())
    }

    fn tell(&mut self, event: &Event<'_>) {
        if let Some(hook) = &mut self.hook {
            hook(event);
        }
    }

    fn now(&mut self) -> u64 {
        self.clock.as_mut().map_or(0, |clock| clock())
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the pass panicked: {}", text.unwrap_or("no message"))
}

#[cfg(test)]
#[path = "manager_tests.rs"]
mod tests;
