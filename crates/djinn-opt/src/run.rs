//! Optimising one model.

use crate::args::{self, Emit, RunArgs};
use crate::engines::Parts;
use crate::planning;
use crate::report;
use djinn::diag::{Context, Culprit, Result, input};
use djinn::ir::{Module, data::Bytes, text};
use djinn::onnx_export::{ExportOptions, Spelling};
use djinn::pass::{Event, Reproducer};
use djinn::plan_data::Plan;
use djinn::{CheckOptions, Model, OptimizeOptions, Outcome, PlanCache, PlanKey, Watch};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Runs the command; gives false if a check found a difference.
pub(crate) fn run(args: &RunArgs) -> Result<bool> {
    if args.list_passes {
        print_text(&pass_list()?)?;
        return Ok(true);
    }
    if args.list_rules {
        print_text(&rule_list()?)?;
        return Ok(true);
    }
    if args.input.is_empty() {
        return Err(
            input("cli.input", "no model is given").help("djinn-opt MODEL --emit ir; see djinn-opt --help")
        );
    }
    if args.profile.is_some() && args.emit != Some(Emit::Report) {
        return Err(
            input("cli.profile", "--profile shows measured times in the report").help("add --emit report")
        );
    }
    if matches!(args.emit, Some(Emit::Onnx | Emit::Bundle)) {
        output_path(args)?;
    }
    let progress = progress();
    let mut clock = Stages::default();
    progress.set_message("reading");
    let model = clock.time("read", || read(args))?;
    if let Some(warning) = missing_weights(&model.module) {
        progress.suspend(|| complain(&format!("{warning}\n")));
    }
    if args.emit == Some(Emit::Onnx) {
        one_entry(&model.module, args.input.len())?;
    }
    if let Some(warning) = unused_options(args) {
        progress.suspend(|| complain(&format!("{warning}\n")));
    }
    let mut work = Work { args, model, progress, clock };
    let done = match args.emit {
        Some(emit) if emit.is_planned() => work.plan(emit)?,
        _ => work.optimise()?,
    };
    work.finish(done)
}

/// The model, or the program that several models make.
fn read(args: &RunArgs) -> Result<Model> {
    let mut models = args.input.iter().map(|path| djinn::read(path)).collect::<Result<Vec<_>>>()?;
    match (&args.plan.program, models.len()) {
        (None, 1) => Ok(models.remove(0)),
        (None, _) => {
            Err(input("cli.input", "several models are given")
                .help("--program NAME makes one program of them"))
        }
        (Some(name), _) => program(models, &djinn::program_labels(&args.input), name),
    }
}

fn program(models: Vec<Model>, labels: &[String], name: &str) -> Result<Model> {
    let (mut opaque, mut type_checks, mut parts) = (BTreeMap::new(), (0, 0), Vec::new());
    let format = models[0].format;
    for (model, label) in models.into_iter().zip(labels) {
        for (operator, count) in model.opaque {
            *opaque.entry(operator).or_default() += count;
        }
        type_checks = (type_checks.0 + model.type_checks.0, type_checks.1 + model.type_checks.1);
        parts.push((model.module, label.clone()));
    }
    let module = djinn::merge_programs(parts, name)?;
    Ok(Model { format, srg: None, module, opaque, type_checks })
}

/// A model on its way.
struct Work<'a> {
    args: &'a RunArgs,
    model: Model,
    progress: indicatif::ProgressBar,
    clock: Stages,
}

/// What has become of it.
struct Done {
    module: Module,
    outcome: Outcome,
    plan: Option<Plan>,
    /// Where the plan is to be kept, if it is found right.
    cache: Option<(PlanCache, PlanKey)>,
}

impl Work<'_> {
    fn stage(&self, what: &str) {
        self.progress.set_message(what.to_owned());
    }

    fn optimise(&mut self) -> Result<Option<Done>> {
        self.stage("optimising");
        let target = planning::target_if_named(&self.args.plan)?.map(Arc::new);
        let options = OptimizeOptions { target, ..options(self.args)? };
        let mut module = self.model.module.clone();
        let watch = watch(self.args, &self.progress);
        let outcome = self.clock.time("optimise", || djinn::optimize(&mut module, &options, Some(watch)))?;
        Ok(Some(Done { module, outcome, plan: None, cache: None }))
    }

    /// Optimises and plans. Gives nothing if the plan was kept from before and nothing else is asked for: then it is
    /// written already.
    fn plan(&mut self, emit: Emit) -> Result<Option<Done>> {
        self.stage("planning");
        let mut request = planning::request(&self.args.plan, options(self.args)?)?;
        // A bundle holds engines, and entries that launch them.
        request.engine_entries = matches!(emit, Emit::Bundle) && !self.args.plan.no_engines;
        let cache = self.args.plan.plan_cache.as_deref().map(|folder| {
            (PlanCache::with_folder(folder), djinn::RequestKey::new(&request).plan_of(&self.model.module))
        });
        let nothing_else = !(self.args.reports() || planning::needs_program(emit));
        if let Some((cache, key)) = cache.as_ref().filter(|_| nothing_else)
            && let Some((plan, _)) = cache.get(key)
        {
            if let Some(unknown) = crate::unknown::unknown(&self.model, &self.model.module) {
                self.progress.suspend(|| complain(&format!("warning: {}\n", unknown.message)));
            }
            let written = planning::Written {
                plan: &plan,
                module: None,
                original: &self.model.module,
                outcome: None,
                title: &title(self.args),
                profile: self.args.profile.as_deref(),
                parts: BTreeMap::new(),
                weights: djinn::Weights::Packed,
            };
            planning::emit(emit, &written, self.args.output.as_deref())?;
            return Ok(None);
        }
        let mut module = self.model.module.clone();
        let watch = watch(self.args, &self.progress);
        let planned = self.clock.time("optimise", || djinn::plan(&mut module, &request, Some(watch)))?;
        if let Some(unknown) = crate::unknown::unknown(&self.model, &module) {
            // A bundle is there to be run.
            if emit == Emit::Bundle {
                return Err(unknown.help("--emit plan and --emit report show the plan all the same"));
            }
            self.progress.suspend(|| complain(&format!("warning: {}\n", unknown.message)));
        }
        Ok(Some(Done { module, outcome: planned.outcome, plan: Some(planned.plan), cache }))
    }

    /// Checks, writes and reports.
    fn finish(mut self, done: Option<Done>) -> Result<bool> {
        let Some(mut done) = done else {
            self.progress.finish_and_clear();
            return Ok(true);
        };
        let check = self.check(&done.module)?;
        // A result that was found wrong is not written.
        let passed = check.as_ref().is_none_or(djinn::CheckReport::passed);
        let parts = if passed { self.parts(&done)? } else { Parts::default() };
        self.stage("writing");
        let nodes = if passed { self.write(&done, parts.files)? } else { None };
        // How engines came about differs from run to run; what was written does not.
        done.outcome.remarks.extend(parts.remarks);
        if passed && let (Some((cache, key)), Some(plan)) = (&done.cache, &done.plan) {
            cache.put(*key, &Arc::new(plan.clone()))?;
            for warning in cache.take_warnings() {
                self.progress.suspend(|| complain(&format!("{warning}\n")));
            }
        }
        self.progress.finish_and_clear();
        self.report(&done, check.as_ref(), nodes)?;
        Ok(passed)
    }

    fn check(&mut self, module: &Module) -> Result<Option<djinn::CheckReport>> {
        if !self.args.check {
            return Ok(None);
        }
        self.stage("checking");
        let inputs = self.args.inputs.as_deref().map(djinn::npz::read).transpose()?;
        if let (Some(inputs), Some(path)) = (&inputs, &self.args.inputs) {
            for function in self.model.module.entries() {
                djinn::npz::check_types(inputs, function).at(|| path.display().to_string())?;
            }
        }
        let options = CheckOptions { inputs, seed: self.args.seed };
        let Work { clock, model, .. } = self;
        clock.time("check", || djinn::check(&model.module, module, &options)).map(Some)
    }

    /// What the bundle carries beside program and plan.
    fn parts(&mut self, done: &Done) -> Result<Parts> {
        let (Some(Emit::Bundle), Some(plan)) = (self.args.emit, &done.plan) else {
            return Ok(Parts::default());
        };
        self.stage("building engines");
        let target = planning::target(&self.args.plan)?;
        let made = || crate::engines::parts(self.args, &target, &done.module, plan);
        let made = self.clock.time("engines", made)?;
        for line in made.warnings.iter().chain(&made.summary) {
            self.progress.suspend(|| complain(line));
        }
        Ok(made)
    }

    fn write(&mut self, done: &Done, parts: BTreeMap<String, Bytes>) -> Result<Option<usize>> {
        let Work { clock, model, args, .. } = self;
        match (&done.plan, args.emit) {
            (Some(plan), Some(form)) => {
                let written = planning::Written {
                    plan,
                    module: Some(&done.module),
                    original: &model.module,
                    outcome: Some(&done.outcome),
                    title: &title(args),
                    profile: args.profile.as_deref(),
                    parts,
                    weights: crate::weights::of(args),
                };
                clock.time("write", || planning::emit(form, &written, args.output.as_deref()))?;
                Ok(None)
            }
            _ => clock.time("write", || emit(args, model, &done.module)),
        }
    }

    fn report(&self, done: &Done, check: Option<&djinn::CheckReport>, nodes: Option<usize>) -> Result<()> {
        let (args, model, outcome) = (self.args, &self.model, &done.outcome);
        if let Some(file) = &args.remarks {
            let all: String = outcome.remarks.iter().map(|r| format!("{r}\n")).collect();
            djinn::write_atomically(file, &mut |out| out.write_all(all.as_bytes()))?;
        }
        let (before, after) = (djinn::stats(&model.module), djinn::stats(&done.module));
        if args.json {
            let object =
                report::json(model, &before, &after, check, &outcome.statistics, nodes, &self.clock.0);
            return say(args, &format!("{object}\n"));
        }
        if args.stats {
            say(args, &report::stats_table(model, &before, &after))?;
            if let Some(n) = nodes {
                say(args, &format!("{:<24} {:>10} {n:>10}\n", "ONNX nodes written", ""))?;
            }
        }
        if args.diff {
            say(args, &report::diff_text(&djinn::scope_changes(&model.module, &done.module)))?;
        }
        if let Some(check) = check {
            say(args, &report::check_table(check))?;
        }
        if args.timing {
            say(args, &report::timing_table(&self.clock.0, &outcome.run))?;
        }
        Ok(())
    }
}

/// What the model is called: its file, or the folder of a file that is called `model`.
fn title(args: &RunArgs) -> String {
    if let Some(name) = &args.plan.program {
        return name.clone();
    }
    let path = args.input.first().map(PathBuf::as_path).unwrap_or(Path::new("program"));
    let stem = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    match path.parent() {
        Some(folder) if stem(path).starts_with("model.") && !stem(folder).is_empty() => {
            format!("{} ({})", stem(folder), stem(path))
        }
        _ => stem(path),
    }
}

/// What to tell of weights that the file declares without values.
fn missing_weights(module: &Module) -> Option<String> {
    let mut missing = module.weights.iter().filter(|(_, w)| w.data.is_none());
    let first = printable(missing.next()?.0);
    let count = 1 + missing.count();
    Some(format!(
        "warning: {count} weights have no values ('{first}' is the first): the graph is optimised, but can be neither \
         checked nor run\n  help: keep the file with the external data beside the model"
    ))
}

/// An ONNX model has one graph.
fn one_entry(module: &Module, files: usize) -> Result<()> {
    let names: Vec<String> = module.entries().map(|f| format!("'{}'", printable(&f.name))).collect();
    if names.len() < 2 {
        return Ok(());
    }
    let message =
        format!("ONNX holds one entry function, the program has {}: {}", names.len(), names.join(", "));
    Err(input("cli.emit", message).shortened().help(match files {
        1 => "keep one of them in the file; --emit ir and --emit bundle hold several",
        _ => "give the file of the one to write, without --program; --emit ir and --emit bundle hold several",
    }))
}

/// What to tell of planning options where no plan is made.
fn unused_options(args: &RunArgs) -> Option<String> {
    let unused = args.plan.unused_without_plan();
    if unused.is_empty() || args.emit.is_some_and(Emit::is_planned) {
        return None;
    }
    let verb = if unused.len() == 1 { "changes" } else { "change" };
    Some(format!(
        "warning: {} {verb} nothing: no plan is made\n  help: --emit plan, plan-text, bundle, trace and report make one",
        unused.join(", ")
    ))
}

/// The text with a stand-in for control characters and those that turn the direction of writing: names come from files.
pub(crate) fn printable(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if odd(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Runs a reproducer again.
pub(crate) fn rerun(file: &Path) -> Result<bool> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| input("file.read", e.to_string()))
        .at(|| file.display().to_string())?;
    let reproducer = Reproducer::parse(&text).at(|| file.display().to_string())?;
    let context = reproducer.context();
    let options = OptimizeOptions {
        pipeline: reproducer.pipeline.to_string(),
        limits: context.limits,
        seed: context.seed,
        fuel: context.fuel.left(),
        verify_each: true,
        extra_rules: Vec::new(),
        target: None,
    };
    let mut module = text::parse_module(&reproducer.module).at(|| file.display().to_string())?;
    djinn::optimize(&mut module, &options, None)?;
    print_text("the pipeline ran without an error\n")?;
    Ok(true)
}

fn options(args: &RunArgs) -> Result<OptimizeOptions> {
    let mut options = OptimizeOptions {
        pipeline: args.pass_pipeline.clone(),
        fuel: args.fuel,
        seed: args.seed,
        verify_each: args.verify_each,
        ..OptimizeOptions::default()
    };
    options.limits.nodes = args.node_limit;
    options.limits.iterations = args.iter_limit;
    if let Some(dir) = &args.rules {
        options.extra_rules = read_rules(dir).at(|| dir.display().to_string())?;
    }
    Ok(options)
}

/// The `.rw` files of a folder in alphabetical order.
fn read_rules(dir: &Path) -> Result<Vec<(String, String)>> {
    let failed = |e: std::io::Error| input("rules.read", e.to_string());
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "rw") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(input("rules.none", "the folder has no .rw files"));
    }
    files
        .into_iter()
        .map(|p| Ok((p.display().to_string(), std::fs::read_to_string(&p).map_err(failed)?)))
        .collect()
}

/// Prints IR where asked, shows the pass that runs, writes a reproducer when one fails.
fn watch(args: &RunArgs, progress: &indicatif::ProgressBar) -> Watch {
    let (before, after) = (args.print_ir_before.clone(), args.print_ir_after.clone());
    let (before_all, after_all) = (args.print_ir_before_all, args.print_ir_after_all);
    let reproducer_path = args.reproducer.clone();
    let progress = progress.clone();
    let on_event = move |event: &Event<'_>| match event {
        Event::Before { pass, module, .. } => {
            progress.set_message(format!("pass {pass}"));
            if before_all || before.iter().any(|p| p == pass) {
                progress
                    .suspend(|| complain(&format!("// IR before {pass}\n{}\n", text::print_module(module))));
            }
        }
        Event::After { pass, module, .. } => {
            if after_all || after.iter().any(|p| p == pass) {
                progress
                    .suspend(|| complain(&format!("// IR after {pass}\n{}\n", text::print_module(module))));
            }
        }
        // A pass that refuses its input needs no reproducer.
        Event::Failed { reproducer, error, .. } => {
            if let Some(reproducer) = reproducer.filter(|_| error.culprit == Culprit::Internal) {
                let text = reproducer.to_text();
                let written =
                    djinn::write_atomically(&reproducer_path, &mut |out| out.write_all(text.as_bytes()));
                let path = reproducer_path.display();
                progress.suspend(|| match written {
                    Ok(()) => complain(&format!("a reproducer was written: djinn-opt rerun {path}\n")),
                    Err(e) => complain(&format!("no reproducer could be written: {e}\n")),
                });
            }
        }
    };
    let start = Instant::now();
    let clock = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Watch { on_event: Box::new(on_event), clock: Some(Box::new(clock)) }
}

/// Where a model or bundle goes, which unlike text has no place on standard output.
fn output_path(args: &RunArgs) -> Result<&Path> {
    let missing = || match args.emit {
        Some(Emit::Bundle) => {
            input("cli.output", "--emit bundle needs -o FOLDER").help("a bundle is a folder of files")
        }
        _ => input("cli.output", "--emit onnx needs -o FILE").help("an ONNX model is not text"),
    };
    args.output.as_deref().ok_or_else(missing)
}

/// Writes what was asked for; gives the number of ONNX nodes if ONNX was written.
fn emit(args: &RunArgs, model: &Model, optimised: &Module) -> Result<Option<usize>> {
    let emit = match args.emit {
        Some(emit) => emit,
        None if args.output.is_some() || !args.reports() => Emit::Ir,
        None => return Ok(None),
    };
    let content = match emit {
        Emit::Onnx => {
            let path = output_path(args)?;
            let spelling = match args.spelling {
                args::Spelling::Native => Spelling::Native,
                args::Spelling::Fast => Spelling::Fast,
            };
            let options = ExportOptions { opset: args.opset, spelling, ..ExportOptions::default() };
            return djinn::export_onnx(optimised, path, options).map(Some);
        }
        Emit::Ir => text::print_module(optimised),
        Emit::Dot => djinn::dot(optimised),
        Emit::Srg => match &model.srg {
            Some(srg) => djinn::srg::json::write(srg, djinn::srg::json::WeightBytes::Omit),
            None => {
                return Err(input("cli.emit", "IR text and programs of several models have no SRG")
                    .help("--emit srg needs a model file"));
            }
        },
        Emit::Plan | Emit::PlanText | Emit::Bundle | Emit::Trace | Emit::Report => {
            return Err(djinn::diag::internal("cli.emit", "no plan was made"));
        }
    };
    match &args.output {
        Some(path) => djinn::write_atomically(path, &mut |out| out.write_all(content.as_bytes()))?,
        None => print_text(&content)?,
    }
    Ok(None)
}

/// Reports go to standard output, or to standard error when the result itself is on standard output.
fn say(args: &RunArgs, text: &str) -> Result<()> {
    let on_stdout = args.output.is_none() && args.emit.is_some();
    if on_stdout {
        complain(text);
        Ok(())
    } else {
        print_text(text)
    }
}

/// Writes to standard error; where that cannot be written to, there is nobody to tell.
pub(crate) fn complain(text: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes to standard output; a closed pipe (`| head`) is no error of ours.
pub(crate) fn print_text(text: &str) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(input("file.write", e.to_string()).at("standard output").help("check its free space"))
        }
        _ => Ok(()),
    }
}

fn rule_list() -> Result<String> {
    use std::fmt::Write;
    let mut out = String::new();
    for rule in djinn::rules()? {
        let _ = writeln!(out, "{:<28} {:<8} {:<20} {}", rule.name, rule.numerics, rule.place, rule.summary);
    }
    Ok(out)
}

fn pass_list() -> Result<String> {
    use std::fmt::Write;
    let mut out = String::new();
    for info in djinn::registry(&[])?.infos() {
        let _ = writeln!(out, "{:<14} {}", info.name, info.summary);
        for o in info.options {
            let default = if o.default.is_empty() { "-" } else { o.default };
            let _ = writeln!(out, "  {:<12} {} (default {default})", o.name, o.summary);
        }
    }
    let _ = writeln!(out, "\ndefault pipeline: {}", djinn::DEFAULT_PIPELINE);
    Ok(out)
}

/// Stages and their time in nanoseconds.
#[derive(Default)]
struct Stages(Vec<(String, u64)>);

impl Stages {
    fn time<T>(&mut self, name: &str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.0.push((name.to_owned(), u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)));
        result
    }
}

/// A spinner on a terminal that shows itself after a second.
fn progress() -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new_spinner();
    let style = indicatif::ProgressStyle::with_template("{late}")
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner())
        .with_key("late", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
            if state.elapsed().as_secs() >= 1 {
                let _ = write!(out, "{} s", state.elapsed().as_secs());
            }
        });
    bar.set_style(style);
    bar.enable_steady_tick(std::time::Duration::from_millis(250));
    bar
}
