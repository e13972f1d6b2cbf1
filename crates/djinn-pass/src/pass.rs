//! What a pass is.

use crate::PassContext;
use djinn_diag::{Result, input, internal};
use djinn_ir::suggest::did_you_mean;
use djinn_ir::{Attrs, Graph, Module, OpKind, TensorData};
use std::collections::BTreeMap;

/// One option of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionInfo {
    /// Name in pipelines, such as `node-limit`.
    pub name: &'static str,
    /// Value if the pipeline gives none.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
}

/// What a pass says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PassInfo {
    /// Name in pipelines, such as `phase-detect`.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// What must hold of the module before.
    pub requires: &'static str,
    /// What holds of the module afterwards.
    pub ensures: &'static str,
    /// What holds afterwards if it held before.
    pub preserves: &'static str,
    /// Options, in the order of the documentation.
    pub options: &'static [OptionInfo],
}

/// A transformation of a module.
pub trait Pass: Send + Sync {
    /// What it is.
    fn info(&self) -> &'static PassInfo;

    /// Changes the module. The same module, context and options always give the same result.
    ///
    /// # Errors
    /// Whatever keeps the pass from doing its work; the module is then in an unspecified state.
    fn run(&self, module: &mut Module, context: &mut PassContext) -> Result<()>;

    /// Its name.
    fn name(&self) -> &'static str {
        self.info().name
    }
}

/// Computes operations on constants; the reference evaluator is one.
pub trait ConstantEvaluator: Send + Sync {
    /// The results of an operation on these operands; `None` if it cannot or should not be computed.
    fn eval(
        &self,
        kind: OpKind,
        attrs: &Attrs,
        operands: &[TensorData],
        regions: &[Graph],
    ) -> Option<Vec<TensorData>>;
}

/// Values of the options of one pass: those given and the defaults of the others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PassOptions {
    pass: String,
    values: BTreeMap<String, String>,
}

impl PassOptions {
    /// The options that `given` makes of the defaults.
    ///
    /// # Errors
    /// `pipeline.option` for an option that the pass does not have, or that is given twice.
    pub fn new(info: &PassInfo, given: &[(String, String)]) -> Result<Self> {
        let mut values: BTreeMap<String, String> =
            info.options.iter().map(|o| (o.name.to_string(), o.default.to_string())).collect();
        for (i, (name, value)) in given.iter().enumerate() {
            let Some(slot) = values.get_mut(name) else {
                let error = input("pipeline.option", format!("pass '{}' has no option '{name}'", info.name));
                let names: Vec<&str> = info.options.iter().map(|o| o.name).collect();
                let all = match names.as_slice() {
                    [] => "it has no options".to_string(),
                    names => format!("it has: {}", names.join(", ")),
                };
                return Err(error.help(did_you_mean(name, names).unwrap_or(all)));
            };
            if given.iter().take(i).any(|(earlier, _)| earlier == name) {
                let message = format!("option '{name}' of pass '{}' is given twice", info.name);
                return Err(input("pipeline.option", message));
            }
            slot.clone_from(value);
        }
        Ok(PassOptions { pass: info.name.to_string(), values })
    }

    /// The value of an option that the pass declares.
    ///
    /// # Errors
    /// An internal diagnostic for an undeclared option.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.values.get(name).map(String::as_str).ok_or_else(|| {
            internal("pipeline.option", format!("pass '{}' declares no option '{name}'", self.pass))
        })
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, what: &str) -> Result<T> {
        let text = self.get(name)?;
        text.parse().map_err(|_| {
            let message = format!("option '{name}' of pass '{}' must be {what}, not '{text}'", self.pass);
            input("pipeline.option", message)
        })
    }

    /// The value as a number.
    ///
    /// # Errors
    /// `pipeline.option` if it is none.
    pub fn u64(&self, name: &str) -> Result<u64> {
        self.parsed(name, "a whole number")
    }

    /// The value as a float.
    ///
    /// # Errors
    /// `pipeline.option` if it is no finite number.
    pub fn f64(&self, name: &str) -> Result<f64> {
        let value: f64 = self.parsed(name, "a number")?;
        if value.is_finite() { Ok(value) } else { self.parsed::<u64>(name, "a finite number").map(|_| value) }
    }

    /// The value as a truth value.
    ///
    /// # Errors
    /// `pipeline.option` if it is neither `true` nor `false`.
    pub fn bool(&self, name: &str) -> Result<bool> {
        self.parsed(name, "true or false")
    }

    /// The value as words separated by commas; an empty value has none.
    ///
    /// # Errors
    /// An internal diagnostic for an undeclared option.
    pub fn list(&self, name: &str) -> Result<Vec<&str>> {
        Ok(self.get(name)?.split(',').map(str::trim).filter(|w| !w.is_empty()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: PassInfo = PassInfo {
        name: "example",
        summary: "Does nothing.",
        requires: "",
        ensures: "",
        preserves: "",
        options: &[
            OptionInfo { name: "node-limit", default: "10", summary: "Nodes, at most." },
            OptionInfo { name: "rules", default: "", summary: "Rules to use." },
        ],
    };

    fn options(given: &[(&str, &str)]) -> Result<PassOptions> {
        let given: Vec<_> = given.iter().map(|(a, b)| (a.to_string(), b.to_string())).collect();
        PassOptions::new(&INFO, &given)
    }

    #[test]
    fn defaults_are_overridden() {
        let o = options(&[("rules", "a, b")]).expect("known");
        assert_eq!(o.u64("node-limit"), Ok(10));
        assert_eq!(o.list("rules"), Ok(vec!["a", "b"]));
    }

    #[test]
    fn wrong_options_are_explained() {
        let e = options(&[("node-limt", "1")]).expect_err("misspelled");
        assert_eq!(e.help.as_deref(), Some("did you mean 'node-limit'?"));
        assert!(options(&[("rules", "a"), ("rules", "b")]).is_err());
        let o = options(&[("node-limit", "inf")]).expect("known");
        assert_eq!(o.u64("node-limit").map_err(|e| e.code), Err("pipeline.option".into()));
        assert!(o.f64("node-limit").is_err() && o.bool("node-limit").is_err() && o.get("other").is_err());
    }
}
