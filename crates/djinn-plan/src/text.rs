//! The plan as lines of text, for people and snapshots: compact and the same for the same plan.

use std::fmt::{self, Write};

use crate::engine::{Engine, Granularity};
use crate::plan::{
    Action, Arena, Buffer, Command, Content, Device, Entry, Kernel, Operand, Place, Plan, Port, ValueRef,
    View,
};

impl fmt::Display for ValueRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ValueRef::Argument(number) => write!(f, "%arg{number}"),
            ValueRef::Result { op, index: 0 } => write!(f, "%{op}"),
            ValueRef::Result { op, index } => write!(f, "%{op}#{index}"),
        }
    }
}

/// Buffer, first byte and number of bytes: `b3+256:1024`.
impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}+{}:{}", self.buffer.0, self.offset, self.bytes)
    }
}

/// Value and view: `%5@b3+0:1024`.
impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.value, self.view)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Buffer(view) => view.fmt(f),
            Place::Input(number) => write!(f, "in{number}"),
            Place::Output(number) => write!(f, "out{number}"),
        }
    }
}

/// The whole plan, one line per device, arena, buffer, port, kernel, alias and command.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write_plan(&mut out, plan);
    out
}

fn write_plan(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(out, "plan {} of {}", plan.version, plan.program)?;
    for (number, Device { name, profile, memory_bytes, host, sync_seconds }) in
        plan.devices.iter().enumerate()
    {
        let host = if *host { " host" } else { "" };
        writeln!(out, "device d{number} {name:?} {profile:?} {memory_bytes}{host} wait {sync_seconds:e} s")?;
    }
    for link in &plan.links {
        let (from, to, hops) = (link.from.0, link.to.0, link.hops.join(" "));
        writeln!(out, "link d{from} -> d{to} {:e} B/s {:e} s [{hops}]", link.bandwidth, link.latency)?;
    }
    for (number, Arena { device, kind, bytes }) in plan.arenas.iter().enumerate() {
        writeln!(out, "arena a{number} d{} {kind:?} {bytes}", device.0)?;
    }
    for (number, Buffer { name, arena, offset, bytes, content }) in plan.buffers.iter().enumerate() {
        let content = match content {
            Content::Constant { function, value } => format!("constant @{function}{value}"),
            Content::State { name } => format!("state {name:?}"),
            Content::Run { entry } => format!("run e{entry}"),
        };
        writeln!(out, "buffer b{number} a{}+{offset}:{bytes} {content} {name:?}", arena.0)?;
    }
    plan.entries.iter().enumerate().try_for_each(|(number, entry)| write_entry(out, number, entry))
}

fn write_entry(out: &mut String, number: usize, entry: &Entry) -> fmt::Result {
    write!(out, "entry e{number} @{}", entry.function)?;
    if let Some(phase) = &entry.phase {
        write!(out, " {phase}")?;
    }
    if entry.granularity == Granularity::Engines {
        write!(out, " engines")?;
    }
    writeln!(out, " {:e} s", entry.seconds)?;
    for symbol in &entry.symbols {
        writeln!(out, "  symbol {} {}..={}", symbol.name, symbol.min, symbol.max)?;
    }
    for (number, port) in entry.inputs.iter().enumerate() {
        write_port(out, &format!("in{number}"), port)?;
    }
    for (number, port) in entry.outputs.iter().enumerate() {
        write_port(out, &format!("out{number}"), port)?;
    }
    for state in &entry.states {
        writeln!(out, "  state %arg{}@{}", state.argument, state.view)?;
    }
    for update in &entry.updates {
        writeln!(out, "  update %arg{}@{} = {}", update.argument, update.view, update.value)?;
    }
    for constant in &entry.constants {
        writeln!(out, "  constant {constant}")?;
    }
    for (number, kernel) in entry.kernels.iter().enumerate() {
        write_kernel(out, number, kernel)?;
    }
    for engine in &entry.engines {
        write_engine(out, engine)?;
    }
    for alias in &entry.aliases {
        writeln!(out, "  alias {} = {}", alias.value, joined(&alias.of))?;
    }
    for (number, stream) in entry.streams.iter().enumerate() {
        writeln!(out, "  stream s{number} d{} {:?}", stream.device.0, stream.kind)?;
    }
    for (number, command) in entry.commands.iter().enumerate() {
        write_command(out, number, command, entry)?;
    }
    for b in &entry.budgets {
        write!(
            out,
            "  budget d{} weights {} state {} kv {}/token {}/session",
            b.device.0, b.weights, b.state, b.kv_per_token, b.kv_per_session
        )?;
        write!(
            out,
            " activations {} (bound {}, workspace {})",
            b.activations, b.activations_bound, b.workspace
        )?;
        match b.sessions {
            Some(sessions) => writeln!(out, " sessions {sessions}")?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

fn write_port(out: &mut String, label: &str, port: &Port) -> fmt::Result {
    write!(out, "  {label} {:?} {} {}", port.name, port.ty, port.value)?;
    if let Some(view) = &port.view {
        write!(out, "@{view}")?;
    }
    if port.resident {
        write!(out, " resident")?;
    }
    if let Some(argument) = port.update_of {
        write!(out, " updates %arg{argument}")?;
    }
    writeln!(out)
}

fn write_kernel(out: &mut String, number: usize, kernel: &Kernel) -> fmt::Result {
    write!(out, "  kernel k{number} {:?} ops {}", kernel.name, spans(&kernel.ops))?;
    if let Some(engine) = kernel.engine {
        write!(out, " engine {engine}")?;
    }
    write!(out, " reads {} writes {}", joined(&kernel.reads), joined(&kernel.writes))?;
    if let Some(view) = &kernel.workspace {
        write!(out, " workspace {view}")?;
    }
    writeln!(out, " {:e} s share {}", kernel.seconds, kernel.share)
}

fn write_engine(out: &mut String, engine: &Engine) -> fmt::Result {
    let kernels: Vec<u32> = engine.kernels.iter().map(|k| k.0).collect();
    let values = |list: &[ValueRef]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    write!(out, "  engine {} d{} kernels {}", engine.number, engine.device.0, spans(&kernels))?;
    write!(out, " ops {} in ({}) {}", spans(&engine.ops), values(&engine.inputs), engine.bytes_in)?;
    write!(out, " out ({}) {}", values(&engine.outputs), engine.bytes_out)?;
    write!(out, " weights {} {:e} s {} FLOP", engine.weight_bytes, engine.seconds, engine.flops)?;
    engine.ends.iter().try_for_each(|why| write!(out, " ends {why:?}"))?;
    writeln!(out)
}

fn write_command(out: &mut String, number: usize, command: &Command, entry: &Entry) -> fmt::Result {
    write!(out, "  {number}: s{} ", command.stream.0)?;
    match command.action {
        Action::Launch { kernel } => {
            let name = entry.kernels.get(kernel.index()).map_or("?", |k| k.name.as_str());
            writeln!(out, "launch k{} {name:?}", kernel.0)
        }
        Action::Copy { value, result, from, to, reason, .. } => {
            write!(out, "copy {reason:?} {value}")?;
            if result != value {
                write!(out, " as {result}")?;
            }
            writeln!(out, " {from} -> {to}")
        }
        Action::Record { event } => writeln!(out, "record v{}", event.0),
        Action::Wait { event } => writeln!(out, "wait v{}", event.0),
    }
}

fn joined(operands: &[Operand]) -> String {
    let texts: Vec<String> = operands.iter().map(Operand::to_string).collect();
    format!("({})", texts.join(" "))
}

/// Ascending numbers, runs of them shortened: `1-4 7`.
fn spans(numbers: &[u32]) -> String {
    let mut out = String::new();
    let mut rest = numbers;
    while let Some(&first) = rest.first() {
        let run = rest.windows(2).take_while(|w| w[0].checked_add(1) == Some(w[1])).count();
        let gap = if out.is_empty() { "" } else { " " };
        let _ = match run {
            0 => write!(out, "{gap}{first}"),
            _ => write!(out, "{gap}{first}-{}", rest[run]),
        };
        rest = &rest[run + 1..];
    }
    out
}
