//! Placements as ONNX writes them: a configuration of the model names devices, a node says on which of them it is.

use djinn_diag::{Result, input};
use djinn_onnx_proto::{ModelProto, NodeProto};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The devices of a model's configurations.
#[derive(Debug, Default)]
pub(crate) struct Configurations(BTreeMap<String, Vec<Arc<str>>>);

impl Configurations {
    /// The configurations that name their devices; devices without names are no devices that a plan can know.
    pub(crate) fn new(model: &ModelProto) -> Configurations {
        let named = model.configuration.iter().map(|c| {
            let devices = c.device.iter().map(|d| Arc::from(d.as_str())).collect();
            (c.name.clone(), devices)
        });
        Configurations(named.collect())
    }

    /// Does any node have a device?
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The device that a node is on as a whole, by its first configuration that says so. Tensors that are cut over
    /// several devices pin nothing.
    pub(crate) fn device(&self, node: &NodeProto) -> Result<Option<Arc<str>>> {
        for of_node in &node.device_configurations {
            let Some(devices) = self.0.get(&of_node.configuration_id) else {
                let message = format!("the model has no device configuration '{}'", of_node.configuration_id);
                return Err(input("onnx.device", message).help("the file is damaged; export the model again"));
            };
            let mut places = of_node.sharding_spec.iter().map(|s| s.device.as_slice());
            let Some([first]) = places.next() else { continue };
            if devices.is_empty() || places.any(|p| p != [*first]) {
                continue;
            }
            let device = usize::try_from(*first).ok().and_then(|n| devices.get(n)).ok_or_else(|| {
                let message = format!("the device configuration has no device number {first}");
                input("onnx.device", message).help("the file is damaged; export the model again")
            })?;
            return Ok(Some(device.clone()));
        }
        Ok(None)
    }
}
