//! The devices of a target, and what pins operations to them.

use djinn_device::Target;
use djinn_diag::suggest::did_you_mean;
use djinn_diag::{Result, input};
use djinn_ir::{Attr, Function, Op, OpKind};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The most devices that are considered; a topology may have more.
pub(crate) const MAX_DEVICES: usize = djinn_place::MAX_DEVICES;

/// The devices that operations are placed on.
pub(crate) struct Devices {
    /// Names, in the order of the topology.
    pub(crate) names: Vec<Arc<str>>,
    numbers: BTreeMap<Arc<str>, usize>,
    /// Names of host memories, which `transfer` may name too.
    hosts: Vec<String>,
    /// Scopes and the devices that the options pin them to.
    pins: Vec<(String, usize)>,
}

/// Reads `SCOPE:DEVICE`; device names may have colons, scopes have none.
pub(crate) fn parse_pin(text: &str) -> Result<(String, String)> {
    match text.split_once(':') {
        Some((scope, device)) if !device.is_empty() => Ok((scope.to_owned(), device.to_owned())),
        _ => Err(input("colocate.pin", format!("'{text}' does not say SCOPE:DEVICE"))
            .help("an example is pin=model.layers.0:h100-80:1; an empty scope is everything")
            .shortened()),
    }
}

impl Devices {
    pub(crate) fn new(target: &Target, pins: &[(String, String)]) -> Result<Self> {
        let all = target.topology.devices();
        let names: Vec<Arc<str>> = all.iter().take(MAX_DEVICES).map(|d| Arc::from(d.name.as_str())).collect();
        let numbers = names.iter().enumerate().map(|(i, n)| (Arc::clone(n), i)).collect();
        let hosts = target.topology.nodes().iter().map(|n| n.host.clone()).collect();
        let mut devices = Self { names, numbers, hosts, pins: Vec::new() };
        devices.pins = pins
            .iter()
            .map(|(scope, device)| Ok((scope.clone(), devices.number(device)?)))
            .collect::<Result<_>>()?;
        Ok(devices)
    }

    /// The number of the device of this name.
    fn number(&self, name: &str) -> Result<usize> {
        self.numbers.get(name).copied().ok_or_else(|| {
            let names = || self.names.iter().map(|n| &**n);
            let shown: Vec<&str> = names().take(16).collect();
            let more = if self.names.len() > shown.len() { ", …" } else { "" };
            let near = did_you_mean(name, names()).map(|t| t + " ").unwrap_or_default();
            input("colocate.device", format!("the topology has no device '{name}'"))
                .help(format!("{near}devices are: {}{more}", shown.join(", ")))
                .shortened()
        })
    }

    /// The device that an operation is pinned to: by its annotation, as a transfer to it, or by an option.
    pub(crate) fn pin(&self, op: &Op) -> Result<Option<usize>> {
        match op.annotations.get("device") {
            Some(Attr::Str(name)) => return self.number(name).map(Some),
            Some(_) => {
                let message = format!("annotation 'device' of '{}' is no text", op.kind.name());
                return Err(input("colocate.device", message).help("it is the name of a device"));
            }
            None => {}
        }
        if op.kind == OpKind::Transfer {
            let name = op.attrs.str("device");
            let host = name == "host" || self.hosts.iter().any(|h| h == name);
            return if host { Ok(None) } else { self.number(name).map(Some) };
        }
        let scope = op.location.scope.as_deref().unwrap_or("");
        let within = |prefix: &str| {
            let rest = scope.strip_prefix(prefix);
            prefix.is_empty() || rest.is_some_and(|r| r.is_empty() || r.starts_with('.'))
        };
        Ok(self.pins.iter().find(|(prefix, _)| within(prefix)).map(|(_, d)| *d))
    }

    /// Checks the pins of a function.
    pub(crate) fn check(&self, function: &Function) -> Result<()> {
        for (_, op) in function.graph.ops() {
            self.pin(op)?;
        }
        Ok(())
    }
}
