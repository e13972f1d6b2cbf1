//! `djinn-opt`: arguments, files, printing. Everything else is in the `djinn` crate.

mod args;
mod bundle;
mod engines;
mod extract;
mod gpu;
mod planning;
mod profile;
mod report;
mod run;
mod sniff;
mod solve;
mod unknown;
mod weights;

use args::{Cli, Command};
use clap::Parser;
use djinn::diag::{Culprit, Diagnostic};
use std::process::ExitCode;

/// Exit code when a check found a difference.
const CHECK_FAILED: u8 = 5;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    // As elsewhere, a dash is standard output.
    cli.run.output = cli.run.output.filter(|path| path.as_os_str() != "-");
    let outcome = std::panic::catch_unwind(|| match cli.command {
        Some(Command::Extract { graph, output, json }) => extract::extract(&graph, output.as_deref(), json),
        Some(Command::Rerun { file }) => run::rerun(&file),
        Some(Command::Run(args)) => bundle::run(&args),
        Some(Command::Explain { plan, profile }) => bundle::explain(&plan, profile.as_deref()),
        Some(Command::PlanCheck { plan }) => bundle::plan_check(&plan),
        Some(Command::Pack(args)) => solve::pack(&args),
        Some(Command::Place(args)) => solve::place(&args),
        Some(Command::Calibrate(args)) if !args.from.is_empty() => profile::calibrate(&args),
        Some(Command::Calibrate(args)) => solve::calibrate(&args),
        None => run::run(&cli.run),
    });
    match outcome {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::from(CHECK_FAILED),
        Ok(Err(diagnostic)) => {
            run::complain(&format!("{diagnostic}\n"));
            ExitCode::from(exit_code(&diagnostic))
        }
        Err(_) => {
            let failure = djinn::diag::internal("panic", "djinn-opt failed unexpectedly, see above");
            run::complain(&format!("{failure}\n"));
            ExitCode::from(4)
        }
    }
}

fn exit_code(d: &Diagnostic) -> u8 {
    match d.culprit {
        // What is wrong with the arguments themselves, as far as the parser of the command line does not see it.
        Culprit::Input if d.code.starts_with("cli.") => 2,
        Culprit::Input => 1,
        Culprit::Unsupported => 3,
        Culprit::Internal => 4,
    }
}
