//! Everything needed to run a failed pass again, as one text file.
//!
//! ```text
//! // djinn reproducer, version 1
//! // pipeline: builtin.module(saturate{rules=all})
//! // limits: nodes=100000 iterations=30 matches-per-rule=10000 memory-bytes=4294967296
//! // seed: 0
//! // fuel: unlimited
//! "builtin.module"() ({
//! ```
//!
//! The header is a comment of the module's text form, so that the file is a module, too.

use crate::{Limits, PassContext, Pipeline};
use djinn_diag::{Context, Result, input};
use djinn_ir::{Fuel, Module, text};

const FIRST_LINE: &str = "// djinn reproducer, version 1";

/// Weights of at most this many bytes stand in the file; larger ones are named by their content hash.
const INLINE_WEIGHTS_UP_TO: usize = 1024;

/// A pipeline, what it ran under, and the module it ran on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reproducer {
    /// The passes to run.
    pub pipeline: Pipeline,
    /// Bounds of searches.
    pub limits: Limits,
    /// Seed of everything random.
    pub seed: u64,
    /// Fuel that was left; `None` if there was no limit.
    pub fuel: Option<u64>,
    /// The module in text form.
    pub module: String,
}

impl Reproducer {
    /// What runs `pipeline` on `module` in the state of `context`.
    pub fn new(pipeline: Pipeline, module: &Module, context: &PassContext) -> Self {
        let options = text::PrintOptions { inline_weights_up_to: INLINE_WEIGHTS_UP_TO, ..Default::default() };
        Reproducer {
            pipeline,
            limits: context.limits,
            seed: context.seed,
            fuel: context.fuel.left(),
            module: text::print_module_with(module, &options),
        }
    }

    /// A context with the limits, seed and fuel of the failed run.
    pub fn context(&self) -> PassContext {
        PassContext {
            limits: self.limits,
            seed: self.seed,
            fuel: self.fuel.map_or_else(Fuel::unlimited, Fuel::limited),
            ..PassContext::new()
        }
    }

    /// The file.
    pub fn to_text(&self) -> String {
        let limits = self.limits.entries().map(|(name, value)| format!("{name}={value}")).join(" ");
        let fuel = self.fuel.map_or_else(|| "unlimited".to_string(), |left| left.to_string());
        format!(
            "{FIRST_LINE}\n// pipeline: {}\n// limits: {limits}\n// seed: {}\n// fuel: {fuel}\n{}",
            self.pipeline, self.seed, self.module
        )
    }

    /// Is this the text of a reproducer?
    pub fn is_one(text: &str) -> bool {
        text.starts_with(FIRST_LINE)
    }

    /// Reads a file that [`Reproducer::to_text`] wrote. The module is not read: see [`text::parse_module`].
    ///
    /// # Errors
    /// `reproducer.parse` for a wrong header, and those of the pipeline.
    pub fn parse(text: &str) -> Result<Reproducer> {
        let mut rest = text;
        let mut line = |prefix: &str, number: usize| -> Result<&str> {
            let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
            let value = line.strip_suffix('\r').unwrap_or(line).strip_prefix(prefix).ok_or_else(|| {
                input("reproducer.parse", format!("expected '{prefix}'")).at(format!("line {number}"))
            })?;
            rest = after;
            Ok(value)
        };
        line(FIRST_LINE, 1)?;
        let pipeline = Pipeline::parse(line("// pipeline: ", 2)?).at(|| "line 2")?;
        let limits = parse_limits(line("// limits: ", 3)?).at(|| "line 3")?;
        let seed = number(line("// seed: ", 4)?).at(|| "line 4")?;
        let fuel = match line("// fuel: ", 5)? {
            "unlimited" => None,
            left => Some(number(left).at(|| "line 5")?),
        };
        Ok(Reproducer { pipeline, limits, seed, fuel, module: rest.to_string() })
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| input("reproducer.parse", format!("'{text}' is no number")))
}

fn parse_limits(text: &str) -> Result<Limits> {
    let mut limits = Limits::default();
    for entry in text.split_whitespace() {
        let (name, value) = entry
            .split_once('=')
            .ok_or_else(|| input("reproducer.parse", format!("expected name=value, found '{entry}'")))?;
        limits.set(name, number(value)?)?;
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_round_trip_and_are_modules() {
        let pipeline = Pipeline::parse("a{x=\"1 2\"},func(b)").expect("parses");
        let mut context = PassContext { seed: 7, fuel: Fuel::limited(3), ..PassContext::new() };
        context.limits.nodes = 5;
        let r = Reproducer::new(pipeline, &Module::default(), &context);
        let text = r.to_text();
        assert!(Reproducer::is_one(&text));
        assert_eq!(Reproducer::parse(&text), Ok(r.clone()));
        assert_eq!(r.context().fuel.left(), Some(3));
        assert!(text::parse_module(&text).is_ok());
    }

    #[test]
    fn wrong_headers_are_refused() {
        let good = Reproducer::new(Pipeline::default(), &Module::default(), &PassContext::new()).to_text();
        for (from, to) in
            [("version 1", "version 2"), ("seed: 0", "seed: x"), ("nodes=", "bodes="), ("fuel: u", "fuel: v")]
        {
            let e = Reproducer::parse(&good.replacen(from, to, 1)).expect_err(to);
            assert!(e.place[0].starts_with("line ") || e.code == "reproducer.parse", "{e}");
        }
        assert!(Reproducer::parse("").is_err());
    }
}
