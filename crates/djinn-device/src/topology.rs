//! Topologies: the devices of a system, the links between them, and what a file of them may say.
//!
//! Endpoints of links are devices (`h100-80:0`), the memory of a node's host (`host` where there is one node, else
//! `host@<node>`; `host` then means the first node's) and switches. Every device is linked to its own host, by the
//! figures of its profile unless the file gives that link. Rings and meshes are fine; links from an endpoint to
//! itself, two links between the same endpoints, and nodes that lie inside themselves are errors.

use crate::profile::Profile;
use crate::read::{
    MAX_RATE, MAX_SECONDS, ProfileText, is_plain_name, profile_of, toml, whole_bytes, whole_count,
};
use djinn_diag::suggest::did_you_mean;
use djinn_diag::{Diagnostic, Result, input};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// Devices of one topology, at most.
pub const MAX_DEVICES: usize = 1024;
/// Links of one topology, at most, host links included.
pub const MAX_LINKS: usize = 4096;
/// Nodes of one topology, at most.
pub const MAX_NODES: usize = 1024;
/// Switches of one topology, at most.
pub const MAX_SWITCHES: usize = 128;

/// A device of a topology.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceInfo {
    /// Name, `<profile>:<n>` unless the file gives another.
    pub name: String,
    /// What it can do.
    pub profile: Arc<Profile>,
    /// The node that holds it.
    pub node: String,
    /// Bytes of its memory: the profile's unless the file gives less or more.
    pub memory_bytes: u64,
}

/// A node: a machine with one host memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Name.
    pub name: String,
    /// Name of its host memory as an endpoint.
    pub host: String,
    /// Bytes of its host memory.
    pub host_memory_bytes: u64,
}

/// Kinds of links; each but `host` and `custom` has usual figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LinkKind {
    /// Between a device and the memory of its host, by the device's profile.
    Host,
    /// PCI Express 3, 16 lanes.
    Pcie3,
    /// PCI Express 4, 16 lanes.
    Pcie4,
    /// PCI Express 5, 16 lanes.
    Pcie5,
    /// NVLink; the usual figures are those of the profiles at its ends.
    NvLink,
    /// 25 Gbit/s Ethernet through the operating system.
    Ethernet25,
    /// 100 Gbit/s Ethernet through the operating system.
    Ethernet100,
    /// 400 Gbit/s Ethernet through the operating system.
    Ethernet400,
    /// 100 Gbit/s remote direct memory access.
    Rdma100,
    /// 400 Gbit/s remote direct memory access.
    Rdma400,
    /// Anything else, with its own figures.
    Custom,
}

impl LinkKind {
    /// Every kind, in declaration order.
    pub const ALL: [LinkKind; 11] = [
        LinkKind::Host,
        LinkKind::Pcie3,
        LinkKind::Pcie4,
        LinkKind::Pcie5,
        LinkKind::NvLink,
        LinkKind::Ethernet25,
        LinkKind::Ethernet100,
        LinkKind::Ethernet400,
        LinkKind::Rdma100,
        LinkKind::Rdma400,
        LinkKind::Custom,
    ];

    /// The word of topology files.
    pub fn name(self) -> &'static str {
        match self {
            LinkKind::Host => "host",
            LinkKind::Pcie3 => "pcie3",
            LinkKind::Pcie4 => "pcie4",
            LinkKind::Pcie5 => "pcie5",
            LinkKind::NvLink => "nvlink",
            LinkKind::Ethernet25 => "ethernet-25",
            LinkKind::Ethernet100 => "ethernet-100",
            LinkKind::Ethernet400 => "ethernet-400",
            LinkKind::Rdma100 => "rdma-100",
            LinkKind::Rdma400 => "rdma-400",
            LinkKind::Custom => "custom",
        }
    }

    /// Usual bandwidth (bytes/s, one direction) and latency (s). Bandwidths are line rates: lanes × transfers/s for
    /// PCI Express, bits/8 for networks. Latencies are orders of magnitude, not measurements.
    fn usual(self) -> Option<(f64, f64)> {
        match self {
            LinkKind::Pcie3 => Some((16e9, 5e-6)),
            LinkKind::Pcie4 => Some((32e9, 5e-6)),
            LinkKind::Pcie5 => Some((64e9, 5e-6)),
            LinkKind::Ethernet25 => Some((25e9 / 8.0, 30e-6)),
            LinkKind::Ethernet100 => Some((100e9 / 8.0, 30e-6)),
            LinkKind::Ethernet400 => Some((400e9 / 8.0, 30e-6)),
            LinkKind::Rdma100 => Some((100e9 / 8.0, 3e-6)),
            LinkKind::Rdma400 => Some((400e9 / 8.0, 3e-6)),
            LinkKind::Host | LinkKind::NvLink | LinkKind::Custom => None,
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A link between two endpoints, usable in both directions at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Link {
    /// The names of its two ends.
    pub ends: [String; 2],
    /// What it is.
    pub kind: LinkKind,
    /// Bytes per second in one direction.
    pub bandwidth: f64,
    /// Seconds until the first byte arrives.
    pub latency: f64,
}

/// The devices of a system and the links between them; valid by construction.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    devices: Vec<DeviceInfo>,
    nodes: Vec<NodeInfo>,
    switches: Vec<String>,
    links: Vec<Link>,
    /// Number of every endpoint by name: devices, then hosts, then switches.
    numbers: BTreeMap<String, usize>,
    /// Link and other end, by endpoint.
    pub(crate) neighbours: Vec<Vec<(usize, usize)>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TopologyText {
    #[serde(default)]
    profile: Vec<ProfileText>,
    #[serde(default)]
    node: Vec<NodeText>,
    #[serde(default)]
    device: Vec<DeviceText>,
    #[serde(default)]
    switch: Vec<SwitchText>,
    #[serde(default)]
    link: Vec<LinkText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeText {
    name: String,
    #[serde(default, deserialize_with = "whole_bytes")]
    host_memory_bytes: Option<u64>,
    inside: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeviceText {
    profile: String,
    name: Option<String>,
    node: Option<String>,
    #[serde(default, deserialize_with = "whole_bytes")]
    memory_bytes: Option<u64>,
    #[serde(default, deserialize_with = "whole_count")]
    count: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SwitchText {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkText {
    between: [String; 2],
    kind: String,
    bandwidth: Option<f64>,
    latency: Option<f64>,
}

impl Topology {
    /// One device, `<profile>:0`, and its host.
    pub fn single(profile: &Profile) -> Topology {
        let mut builder = Builder::default();
        builder.add_node("node0", None);
        builder.devices.push(DeviceInfo {
            name: format!("{}:0", profile.name),
            memory_bytes: profile.memory_bytes,
            profile: Arc::new(profile.clone()),
            node: "node0".to_owned(),
        });
        builder.finish(Vec::new()).unwrap_or_else(|e| unreachable!("one device and its host: {e}"))
    }

    /// Reads a topology from TOML; `place` names the file in diagnostics.
    ///
    /// # Errors
    /// `topology.format` and the other codes of this module, each about one thing that is wrong.
    pub fn parse(text: &str, place: &str) -> Result<Topology> {
        let text: TopologyText = toml(text, "topology.format", place)?;
        build(text).map_err(|e| e.at(place).shortened())
    }

    /// The devices, in the order of the file.
    pub fn devices(&self) -> &[DeviceInfo] {
        &self.devices
    }

    /// The nodes that hold devices or are named, in the order of the file.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The links: those of the file, then the host links that it leaves out.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Number of the device of this name.
    pub fn device_index(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied().filter(|i| *i < self.devices.len())
    }

    /// The device of this name.
    pub fn device(&self, name: &str) -> Option<&DeviceInfo> {
        self.device_index(name).map(|i| &self.devices[i])
    }

    /// The node whose host memory has this name (`host`, or `host@<node>`).
    pub fn host(&self, name: &str) -> Option<&NodeInfo> {
        let number = self.numbers.get(name)?.checked_sub(self.devices.len())?;
        self.nodes.get(number)
    }

    /// The node of device number `device`; its `host` is where the device spills to.
    pub fn node_of(&self, device: usize) -> Option<&NodeInfo> {
        let node = &self.devices.get(device)?.node;
        self.nodes.iter().find(|n| n.name == *node)
    }

    /// Number of the endpoint of this name: a device, a host memory or a switch.
    ///
    /// # Errors
    /// `topology.endpoint` if there is none, with the names nearest to it.
    pub fn endpoint(&self, name: &str) -> Result<usize> {
        self.numbers.get(name).copied().ok_or_else(|| unknown_endpoint(name, &self.numbers))
    }

    /// Number of endpoints.
    pub fn endpoint_count(&self) -> usize {
        self.neighbours.len()
    }

    /// Name of an endpoint by number; empty if there is none.
    pub fn endpoint_name(&self, number: usize) -> &str {
        let hosts = self.devices.len();
        let switches = hosts + self.nodes.len();
        let name = match number {
            n if n < hosts => self.devices.get(n).map(|d| &d.name),
            n if n < switches => self.nodes.get(n - hosts).map(|d| &d.host),
            n => self.switches.get(n - switches),
        };
        name.map_or("", String::as_str)
    }

    /// Is this endpoint a switch, which passes data on without holding it?
    pub fn is_switch(&self, number: usize) -> bool {
        number >= self.devices.len() + self.nodes.len()
    }
}

/// Bytes of host memory where a file gives none: twice those of the node's devices (an estimate; a DGX H100 has 2 TB beside
/// 640 GB: NVIDIA DGX H100/H200 User Guide, "Hardware Overview"), at least those of the built-in profile `host`.
fn usual_host_memory(devices: u64) -> u64 {
    let least = Profile::builtin("host").map_or(0, |p| p.memory_bytes);
    devices.saturating_mul(2).max(least)
}

/// A topology in the making: names are checked, links are not.
#[derive(Default)]
struct Builder {
    devices: Vec<DeviceInfo>,
    nodes: Vec<NodeInfo>,
    /// Names of nodes whose memory is not given.
    usual_hosts: BTreeSet<String>,
    switches: Vec<String>,
}

fn build(text: TopologyText) -> Result<Topology> {
    check_containment(&text.node)?;
    let mut profiles: BTreeMap<String, Arc<Profile>> = BTreeMap::new();
    for own in text.profile {
        let own = profile_of(own)?;
        if let Some(twice) = profiles.insert(own.name.clone(), Arc::new(own)) {
            return Err(duplicate_name("profile", &twice.name));
        }
    }
    let mut builder = Builder::default();
    // A node that only holds other nodes (a rack) has no host memory of its own.
    let holders: BTreeSet<&str> = text.node.iter().filter_map(|n| n.inside.as_deref()).collect();
    let used: BTreeSet<&str> = text.device.iter().filter_map(|d| d.node.as_deref()).collect();
    for node in &text.node {
        if !holders.contains(node.name.as_str()) || used.contains(node.name.as_str()) {
            builder.add_node(&node.name, node.host_memory_bytes);
        }
    }
    for device in &text.device {
        builder.add_devices(device, &mut profiles)?;
    }
    builder.switches = text.switch.into_iter().map(|s| s.name).collect();
    builder.finish(text.link)
}

/// Every node lies in a named node, and none in itself.
fn check_containment(nodes: &[NodeText]) -> Result<()> {
    let mut inside: BTreeMap<&str, Option<&str>> = BTreeMap::new();
    for node in nodes {
        if !is_plain_name(&node.name) {
            return Err(bad_name("node", &node.name));
        }
        if inside.insert(&node.name, node.inside.as_deref()).is_some() {
            return Err(duplicate_name("node", &node.name));
        }
    }
    for start in nodes {
        let mut path = vec![start.name.as_str()];
        let mut current = start.name.as_str();
        while let Some(holder) = inside[current] {
            if !inside.contains_key(holder) {
                let near = did_you_mean(holder, inside.keys().copied());
                return Err(input(
                    "topology.node",
                    format!("there is no node '{holder}' to hold '{current}'"),
                )
                .help(near.unwrap_or_else(|| "declare it with [[node]]".to_owned())));
            }
            path.push(holder);
            if holder == start.name {
                let message = format!("node '{holder}' lies inside itself: {}", path.join(" inside "));
                return Err(input("topology.cycle", message).help("take one of the 'inside' entries out"));
            }
            if path.len() > nodes.len() {
                // A cycle that does not lead back here: it is reported from one of its own nodes.
                break;
            }
            current = holder;
        }
    }
    Ok(())
}

impl Builder {
    fn add_node(&mut self, name: &str, memory: Option<u64>) {
        self.nodes.push(NodeInfo {
            name: name.to_owned(),
            host: String::new(),
            host_memory_bytes: memory.unwrap_or(0),
        });
        if memory.is_none() {
            self.usual_hosts.insert(name.to_owned());
        }
    }

    fn add_devices(
        &mut self,
        text: &DeviceText,
        profiles: &mut BTreeMap<String, Arc<Profile>>,
    ) -> Result<()> {
        let profile = match profiles.get(&text.profile) {
            Some(own) => own.clone(),
            None => Arc::new(Profile::named(&text.profile)?.clone()),
        };
        profiles.insert(text.profile.clone(), profile.clone());
        let count = text.count.unwrap_or(1);
        if count == 0 || count > MAX_DEVICES || (count > 1 && text.name.is_some()) {
            let message = format!("{count} devices of profile '{}' in one entry", text.profile);
            return Err(input("topology.devices", message)
                .help(format!("count is from 1 to {MAX_DEVICES}; an entry with a name has one device")));
        }
        let node = text.node.as_deref().unwrap_or("node0");
        if !self.nodes.iter().any(|n| n.name == node) {
            if !is_plain_name(node) {
                return Err(bad_name("node", node));
            }
            self.add_node(node, None);
        }
        if text.memory_bytes.is_some_and(|b| b == 0 || b > 1_000_000_000_000_000) {
            return Err(input(
                "topology.memory",
                format!("memory_bytes of a '{}' is out of range", text.profile),
            )
            .help("give from 1 to 1e15 bytes, or leave it out for what the profile has"));
        }
        for _ in 0..count {
            let taken = self.devices.iter().filter(|d| d.profile.name == profile.name).count();
            self.devices.push(DeviceInfo {
                name: text.name.clone().unwrap_or_else(|| format!("{}:{taken}", profile.name)),
                memory_bytes: text.memory_bytes.unwrap_or(profile.memory_bytes),
                profile: profile.clone(),
                node: node.to_owned(),
            });
            if self.devices.len() > MAX_DEVICES {
                return Err(input("topology.devices", format!("more than {MAX_DEVICES} devices")));
            }
        }
        Ok(())
    }

    /// Names every endpoint, adds the links and the host links that are left out, and checks the whole.
    fn finish(mut self, texts: Vec<LinkText>) -> Result<Topology> {
        if self.devices.is_empty() {
            return Err(input("topology.devices", "the topology has no device")
                .help("add one, such as [[device]] with profile = \"h100-80\""));
        }
        let (nodes, switches) = (self.nodes.len(), self.switches.len());
        if nodes > MAX_NODES || switches > MAX_SWITCHES || texts.len() > MAX_LINKS - MAX_DEVICES {
            let message = format!("{nodes} nodes, {switches} switches and {} links", texts.len());
            return Err(input("topology.size", message + " are too many").help(format!(
                "at most {MAX_NODES} nodes, {MAX_SWITCHES} switches and {} links",
                MAX_LINKS - MAX_DEVICES
            )));
        }
        let single = nodes == 1;
        for node in &mut self.nodes {
            node.host = if single { "host".to_owned() } else { format!("host@{}", node.name) };
            if self.usual_hosts.contains(&node.name) {
                let devices = self.devices.iter().filter(|d| d.node == node.name).map(|d| d.memory_bytes);
                node.host_memory_bytes = usual_host_memory(devices.fold(0, u64::saturating_add));
            }
        }
        let numbers = self.numbers()?;
        let mut links = Links { builder: &self, numbers: &numbers, links: Vec::new(), ends: BTreeMap::new() };
        for text in texts {
            links.add(text)?;
        }
        links.add_host_links();
        let links = links.links;
        let mut neighbours = vec![Vec::new(); self.devices.len() + nodes + switches];
        for (i, link) in links.iter().enumerate() {
            let [a, b] = [0, 1].map(|end| numbers[&link.ends[end]]);
            neighbours[a].push((i, b));
            neighbours[b].push((i, a));
        }
        let Builder { devices, nodes, switches, .. } = self;
        let topology = Topology { devices, nodes, switches, links, numbers, neighbours };
        topology.check_reachable()?;
        Ok(topology)
    }

    fn name(&self, number: usize) -> &str {
        let names = self.devices.iter().map(|d| &d.name).chain(self.nodes.iter().map(|n| &n.host));
        names.chain(&self.switches).nth(number).map_or("", String::as_str)
    }

    fn numbers(&self) -> Result<BTreeMap<String, usize>> {
        let mut numbers = BTreeMap::new();
        let devices = self.devices.iter().map(|d| (&d.name, "device"));
        let hosts = self.nodes.iter().map(|n| (&n.host, "node"));
        let switches = self.switches.iter().map(|s| (s, "switch"));
        for (number, (name, what)) in devices.chain(hosts).chain(switches).enumerate() {
            let stem = if what == "node" { "host" } else { name.as_str() };
            let plain = stem.split(':').all(is_plain_name) && stem.split(':').count() <= 2;
            if !plain || (what != "node" && name == "host") {
                return Err(bad_name(what, name));
            }
            if numbers.insert(name.clone(), number).is_some() {
                return Err(duplicate_name(what, name));
            }
        }
        // Both ways of naming the first host work, however many nodes there are.
        numbers.entry("host".to_owned()).or_insert(self.devices.len());
        numbers.entry(format!("host@{}", self.nodes[0].name)).or_insert(self.devices.len());
        Ok(numbers)
    }
}

/// Links in the making.
struct Links<'a> {
    builder: &'a Builder,
    numbers: &'a BTreeMap<String, usize>,
    links: Vec<Link>,
    /// Pairs of endpoints that have a link.
    ends: BTreeMap<(usize, usize), usize>,
}

impl Links<'_> {
    fn add(&mut self, text: LinkText) -> Result<()> {
        let place = format!("link between '{}' and '{}'", text.between[0], text.between[1]);
        let link = self.link(text).map_err(|e| e.at(place))?;
        self.links.push(link);
        Ok(())
    }

    fn link(&mut self, text: LinkText) -> Result<Link> {
        let mut ends = [0; 2];
        for (slot, name) in ends.iter_mut().zip(&text.between) {
            *slot = *self.numbers.get(name).ok_or_else(|| unknown_endpoint(name, self.numbers))?;
        }
        if ends[0] == ends[1] {
            return Err(input("topology.self-link", "the link leads from an endpoint to itself")
                .help("a link joins two different endpoints"));
        }
        if self.ends.insert((ends[0].min(ends[1]), ends[0].max(ends[1])), self.links.len()).is_some() {
            return Err(input("topology.duplicate-link", "there are two links between these endpoints")
                .help("give one link with the bandwidth of both together"));
        }
        let kind = LinkKind::ALL.into_iter().find(|k| k.name() == text.kind).ok_or_else(|| {
            let known = LinkKind::ALL.map(LinkKind::name).join(", ");
            input("topology.link-kind", format!("there is no kind of link '{}'", text.kind))
                .help(format!("kinds are: {known}"))
        })?;
        let usual = kind.usual().or_else(|| self.of_profiles(kind, ends));
        let figure = |given: Option<f64>, usual: Option<f64>, what| {
            given.or(usual).ok_or_else(|| {
                input(format!("topology.{what}"), format!("a link of kind '{kind}' here needs its {what}"))
                    .help("only the kind does not tell it")
            })
        };
        let bandwidth = figure(text.bandwidth, usual.map(|u| u.0), "bandwidth")?;
        let latency = figure(text.latency, usual.map(|u| u.1), "latency")?;
        if !(1.0..=MAX_RATE).contains(&bandwidth) {
            return Err(input(
                "topology.bandwidth",
                format!("the bandwidth is {bandwidth}; it has to be from 1 to 1e30"),
            )
            .help("give bytes per second in one direction, or take the link out"));
        }
        if !(0.0..=MAX_SECONDS).contains(&latency) {
            return Err(input(
                "topology.latency",
                format!("the latency is {latency}; it has to be from 0 to 1e9"),
            )
            .help("give seconds"));
        }
        Ok(Link { ends: ends.map(|end| self.builder.name(end).to_owned()), kind, bandwidth, latency })
    }

    /// Figures of NVLink and host links: those of the slower of the devices at the ends.
    fn of_profiles(&self, kind: LinkKind, ends: [usize; 2]) -> Option<(f64, f64)> {
        let devices = ends.into_iter().filter_map(|end| self.builder.devices.get(end));
        let figures = devices.map(|d| match kind {
            LinkKind::NvLink => d.profile.peer_link,
            LinkKind::Host => Some(d.profile.host_link),
            _ => None,
        });
        let figures: Option<Vec<_>> = figures.collect();
        figures?
            .into_iter()
            .map(|f| (f.bandwidth, f.latency_seconds))
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)))
    }

    fn add_host_links(&mut self) {
        for (number, device) in self.builder.devices.iter().enumerate() {
            let Some(node) = self.builder.nodes.iter().position(|n| n.name == device.node) else { continue };
            let host = self.builder.devices.len() + node;
            if self.ends.contains_key(&(number, host)) {
                continue;
            }
            let figures = device.profile.host_link;
            self.links.push(Link {
                ends: [device.name.clone(), self.builder.nodes[node].host.clone()],
                kind: LinkKind::Host,
                bandwidth: figures.bandwidth,
                latency: figures.latency_seconds,
            });
        }
    }
}

impl Topology {
    /// Every device can reach every other.
    fn check_reachable(&self) -> Result<()> {
        let mut reached = vec![false; self.neighbours.len()];
        let mut stack = vec![0];
        reached[0] = true;
        while let Some(at) = stack.pop() {
            for &(_, next) in &self.neighbours[at] {
                if !reached[next] {
                    reached[next] = true;
                    stack.push(next);
                }
            }
        }
        let Some(lost) = self.devices.iter().enumerate().find(|(i, _)| !reached[*i]) else { return Ok(()) };
        let message = format!("no links lead from '{}' to '{}'", self.devices[0].name, lost.1.name);
        Err(input("topology.unreachable", message).help(
            "link their hosts, such as [[link]] between = [\"host@a\", \"host@b\"] kind = \"rdma-100\"",
        ))
    }
}

fn unknown_endpoint(name: &str, numbers: &BTreeMap<String, usize>) -> Box<Diagnostic> {
    let known = numbers.keys().take(12).cloned().collect::<Vec<_>>().join(", ");
    let near = did_you_mean(name, numbers.keys().map(String::as_str)).map(|t| t + " ").unwrap_or_default();
    let more = if numbers.len() > 12 { ", …" } else { "" };
    input("topology.endpoint", format!("there is no endpoint '{name}'"))
        .help(format!("{near}endpoints are: {known}{more}"))
        .shortened()
}

fn duplicate_name(what: &str, name: &str) -> Box<Diagnostic> {
    input("topology.duplicate-name", format!("there are two of the name '{name}', one of them a {what}"))
        .help("names of devices, nodes and switches are distinct")
}

fn bad_name(what: &str, name: &str) -> Box<Diagnostic> {
    input("topology.name", format!("'{name}' is no name of a {what}"))
        .help("use letters, digits, '-', '_' and '.'; devices may end in ':' and a number; 'host' is taken")
}

#[cfg(test)]
#[path = "topology_tests.rs"]
mod tests;
