//! Placements as ONNX writes them: a configuration of the model names the devices, and every node says on which of
//! them its results are (IR version 11; `ShardingSpecProto` with one device and no cut dimension).

use djinn_onnx_proto as onnx;

/// The first IR version that has device configurations.
const FIRST_VERSION: i64 = 11;
/// What the configuration is called.
const CONFIGURATION: &str = "djinn";
/// The entry of a node's metadata that names its device.
const KEY: &str = "djinn.device";

/// Gives every node with a device its configuration, and the model's configurations: none if no node has a device, or
/// if the version of the model has no place for them.
pub(crate) fn configure(
    nodes: &mut [onnx::NodeProto],
    ir_version: i64,
) -> Vec<onnx::DeviceConfigurationProto> {
    if ir_version < FIRST_VERSION {
        return Vec::new();
    }
    let mut devices: Vec<String> = Vec::new();
    for node in nodes {
        let Some(device) = node.metadata_props.iter().find(|p| p.key == KEY).map(|p| p.value.clone()) else {
            continue;
        };
        let number = devices.iter().position(|d| *d == device).unwrap_or_else(|| {
            devices.push(device);
            devices.len() - 1
        });
        let results = node.output.iter().filter(|o| !o.is_empty());
        node.device_configurations = vec![onnx::NodeDeviceConfigurationProto {
            configuration_id: CONFIGURATION.into(),
            sharding_spec: results
                .map(|o| onnx::ShardingSpecProto { tensor_name: o.clone(), device: vec![number as i64] })
                .collect(),
            pipeline_stage: None,
        }];
    }
    if devices.is_empty() {
        return Vec::new();
    }
    let num_devices = i32::try_from(devices.len()).unwrap_or(i32::MAX);
    vec![onnx::DeviceConfigurationProto { name: CONFIGURATION.into(), num_devices, device: devices }]
}
