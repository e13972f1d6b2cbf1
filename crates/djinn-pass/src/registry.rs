//! Passes by name.

use crate::{Pass, PassInfo, PassOptions};
use djinn_diag::{Result, input, internal};
use djinn_ir::suggest::did_you_mean;
use std::collections::BTreeMap;

type Make = Box<dyn Fn(&PassOptions) -> Result<Box<dyn Pass>> + Send + Sync>;

/// Passes that pipelines can name. Every pass is registered by a call; nothing registers itself.
#[derive(Default)]
pub struct PassRegistry {
    passes: BTreeMap<&'static str, (&'static PassInfo, Make)>,
}

impl PassRegistry {
    /// No passes.
    pub fn new() -> Self {
        PassRegistry::default()
    }

    /// Adds a pass, made from its options by `make`.
    ///
    /// # Errors
    /// An internal diagnostic if the name is taken or is not made of small letters, digits and hyphens.
    pub fn register(
        &mut self,
        info: &'static PassInfo,
        make: impl Fn(&PassOptions) -> Result<Box<dyn Pass>> + Send + Sync + 'static,
    ) -> Result<()> {
        let name = info.name;
        let valid = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && name != crate::pipeline::FUNC;
        if !valid {
            return Err(internal("pass.name", format!("'{name}' is no name for a pass")));
        }
        match self.passes.insert(name, (info, Box::new(make))) {
            Some(_) => Err(internal("pass.name", format!("two passes are named '{name}'"))),
            None => Ok(()),
        }
    }

    /// All passes, sorted by name.
    pub fn infos(&self) -> impl Iterator<Item = &'static PassInfo> {
        self.passes.values().map(|(info, _)| *info)
    }

    /// A pass with these options.
    ///
    /// # Errors
    /// `pipeline.pass` if there is none of this name, `pipeline.option` for wrong options.
    pub fn make(&self, name: &str, options: &[(String, String)]) -> Result<Box<dyn Pass>> {
        let Some((info, make)) = self.passes.get(name) else {
            let error = input("pipeline.pass", format!("there is no pass '{name}'"));
            let names: Vec<&str> = self.passes.keys().copied().collect();
            let all = format!("passes are: {}", names.join(", "));
            return Err(error.help(did_you_mean(name, names).unwrap_or(all)));
        };
        make(&PassOptions::new(info, options)?)
    }
}
