//! Optimising one model.

use crate::args::{self, Emit, RunArgs};
use crate::report;
use djinn::diag::{Context, Result, input};
use djinn::ir::{Module, text};
use djinn::onnx_export::{ExportOptions, Spelling};
use djinn::pass::{Event, Reproducer};
use djinn::{CheckOptions, Model, OptimizeOptions, Watch};
use std::path::{Path, PathBuf};
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
    let path = args.input.as_ref().ok_or_else(|| {
        input("cli.input", "no model is given").help("djinn-opt MODEL --emit ir; see djinn-opt --help")
    })?;
    if args.emit == Some(Emit::Onnx) {
        onnx_path(args)?;
    }
    let options = options(args)?;
    let progress = progress();
    let mut clock = Stages::default();
    let set = |stage: &str| progress.set_message(format!("{stage} {}", path.display()));

    set("reading");
    let model = clock.time("read", || djinn::read(path))?;
    if let Some(warning) = missing_weights(&model.module) {
        progress.suspend(|| eprintln!("{warning}"));
    }
    set("optimising");
    let mut optimised = model.module.clone();
    let outcome =
        clock.time("optimise", || djinn::optimize(&mut optimised, &options, Some(watch(args, &progress))))?;
    let check = if args.check {
        set("checking");
        let inputs = args.inputs.as_deref().map(djinn::npz::read).transpose()?;
        let check_options = CheckOptions { inputs, seed: args.seed };
        Some(clock.time("check", || djinn::check(&model.module, &optimised, &check_options))?)
    } else {
        None
    };
    // A result that was found wrong is not written.
    let passed = check.as_ref().is_none_or(djinn::CheckReport::passed);
    set("writing");
    let nodes = if passed { clock.time("write", || emit(args, &model, &optimised))? } else { None };
    progress.finish_and_clear();

    if let Some(file) = &args.remarks {
        let all: String = outcome.remarks.iter().map(|r| format!("{r}\n")).collect();
        djinn::write_atomically(file, &mut |out| out.write_all(all.as_bytes()))?;
    }
    let (before, after) = (djinn::stats(&model.module), djinn::stats(&optimised));
    if args.json {
        let object =
            report::json(&model, &before, &after, check.as_ref(), &outcome.statistics, nodes, &clock.0);
        say(args, &format!("{object}\n"))?;
    } else {
        if args.stats {
            say(args, &report::stats_table(&model, &before, &after))?;
            if let Some(n) = nodes {
                say(args, &format!("{:<24} {:>10} {n:>10}\n", "ONNX nodes written", ""))?;
            }
        }
        if args.diff {
            say(args, &report::diff_text(&djinn::scope_changes(&model.module, &optimised)))?;
        }
        if let Some(check) = &check {
            say(args, &report::check_table(check))?;
        }
        if args.timing {
            say(args, &report::timing_table(&clock.0, &outcome.run))?;
        }
    }
    Ok(passed)
}

/// What to tell of weights that the file declares without values.
fn missing_weights(module: &Module) -> Option<String> {
    let mut missing = module.weights.iter().filter(|(_, w)| w.data.is_none());
    let (first, _) = missing.next()?;
    let count = 1 + missing.count();
    Some(format!(
        "warning: {count} weights have no values ('{first}' is the first): the graph is optimised, but can be neither \
         checked nor run\n  help: keep the file with the external data beside the model"
    ))
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
                progress.suspend(|| eprintln!("// IR before {pass}\n{}", text::print_module(module)));
            }
        }
        Event::After { pass, module, .. } => {
            if after_all || after.iter().any(|p| p == pass) {
                progress.suspend(|| eprintln!("// IR after {pass}\n{}", text::print_module(module)));
            }
        }
        Event::Failed { reproducer, .. } => {
            if let Some(reproducer) = reproducer {
                let text = reproducer.to_text();
                let written =
                    djinn::write_atomically(&reproducer_path, &mut |out| out.write_all(text.as_bytes()));
                let path = reproducer_path.display();
                progress.suspend(|| match written {
                    Ok(()) => eprintln!("a reproducer was written: djinn-opt rerun {path}"),
                    Err(e) => eprintln!("no reproducer could be written: {e}"),
                });
            }
        }
    };
    let start = Instant::now();
    let clock = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    Watch { on_event: Box::new(on_event), clock: Some(Box::new(clock)) }
}

/// Where the ONNX model goes, which unlike text has no place on standard output.
fn onnx_path(args: &RunArgs) -> Result<&Path> {
    args.output
        .as_deref()
        .ok_or_else(|| input("cli.output", "--emit onnx needs -o FILE").help("an ONNX model is not text"))
}

/// Writes what was asked for; gives the number of ONNX nodes if ONNX was written.
fn emit(args: &RunArgs, model: &Model, optimised: &Module) -> Result<Option<usize>> {
    let nothing_else =
        !(args.check || args.stats || args.diff || args.timing || args.json || args.remarks.is_some());
    let emit = match args.emit {
        Some(emit) => emit,
        None if args.output.is_some() || nothing_else => Emit::Ir,
        None => return Ok(None),
    };
    let content = match emit {
        Emit::Onnx => {
            let path = onnx_path(args)?;
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
            None => return Err(input("cli.emit", "IR text has no SRG").help("--emit srg needs a model file")),
        },
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
        eprint!("{text}");
        Ok(())
    } else {
        print_text(text)
    }
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
