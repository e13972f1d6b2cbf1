//! Inputs, outputs and states: what comes from the caller, what goes there, what stays.

use crate::commands::Drafter;
use djinn_diag::{Result, internal};
use djinn_ir::graph::Definition;
use djinn_ir::{ArgumentKind, ResultKind, ValueId};
use djinn_plan::{Action, CopyReason, DeviceId, Place, Port, StateUpdate, StreamKind, ValueRef};
use std::collections::BTreeSet;

impl Drafter<'_, '_> {
    pub(crate) fn is_state(&self, argument: u32) -> bool {
        matches!(self.function.arguments.get(argument as usize), Some((_, ArgumentKind::State { .. })))
    }

    /// Inputs and outputs, not yet placed.
    pub(crate) fn ports(&mut self) {
        let graph = &self.function.graph;
        let used: BTreeSet<ValueId> = graph
            .ops()
            .flat_map(|(_, op)| &op.operands)
            .filter(|v| graph.is_argument(**v))
            .copied()
            .collect();
        for (n, (v, (name, kind))) in graph.arguments.iter().zip(&self.function.arguments).enumerate() {
            if *kind == ArgumentKind::Input {
                self.input_of.insert(n as u32, self.entry.inputs.len());
                self.entry.inputs.push(Port {
                    name: name.to_string(),
                    ty: graph.ty(*v).to_string(),
                    value: ValueRef::Argument(n as u32),
                    view: None,
                    // What nothing reads needs no place, and what several devices read is brought to each.
                    resident: self.spec.resident.contains(&**name)
                        && used.contains(v)
                        && !self.places.is_shared(*v),
                    update_of: None,
                });
            }
        }
        for (v, (name, kind)) in graph.results.iter().zip(&self.function.results) {
            let update_of = match kind {
                ResultKind::Update(n) if self.is_state(*n) => continue,
                ResultKind::Update(n) => Some(*n),
                ResultKind::Output => None,
            };
            let value = self.value(*v);
            let computed = matches!(value, ValueRef::Result { .. }) && !self.is_ahead(*v);
            // What another device is given too cannot stay: it would leave its device.
            let stays = computed && !self.places.is_shared(*v);
            self.outputs_of.entry(*v).or_default().push(self.entry.outputs.len());
            self.entry.outputs.push(Port {
                name: name.to_string(),
                ty: graph.ty(*v).to_string(),
                value,
                view: None,
                resident: stays && self.spec.resident.contains(&**name),
                update_of,
            });
        }
    }

    /// Hands a value to the caller wherever it is a result.
    pub(crate) fn output_copies(&mut self, v: ValueId) -> Result<()> {
        for n in self.outputs_of.get(&v).cloned().unwrap_or_default() {
            let value = self.value(v);
            let Some(device) = self.places.device(v) else {
                return Err(internal("plan.output", format!("%{} has no place", v.0)));
            };
            // On the stream that made it, so that no event is needed.
            let beside = self.stream(device, StreamKind::Compute, 0);
            let view = self.read(v, device, beside)?.view;
            self.entry.outputs[n].view = Some(view);
            if self.entry.outputs[n].resident {
                continue;
            }
            let made_on = self.writer.get(&view.buffer).copied();
            let same_device = |s: &djinn_plan::StreamId| self.entry.streams[s.index()].device == device;
            let stream = made_on.filter(same_device).unwrap_or(beside);
            let (from, to) = (Place::Buffer(view), Place::Output(n as u32));
            let seconds = self.costs.host_copy(device, view.bytes);
            let action = Action::Copy { value, result: value, from, to, reason: CopyReason::Output, seconds };
            self.push(stream, action, vec![view], Vec::new());
        }
        Ok(())
    }

    /// Brings new contents to states that were not renewed in place, and hands out old ones that are results.
    pub(crate) fn updates(&mut self) -> Result<()> {
        let graph = &self.function.graph;
        let arguments: BTreeSet<ValueId> =
            graph.results.iter().filter(|v| graph.definition(**v).is_none()).copied().collect();
        for v in arguments {
            if let Definition::Argument(n) = graph.value(v).def
                && self.is_state(n)
                && self.entry.outputs.iter().any(|p| p.value == ValueRef::Argument(n))
            {
                let device = self.places.device(v).unwrap_or(DeviceId(0));
                let stream = self.stream(device, StreamKind::Compute, 0);
                self.read(v, device, stream)?;
                self.output_copies(v)?;
            }
        }
        for (v, (_, kind)) in graph.results.iter().zip(&self.function.results) {
            if let ResultKind::Update(n) = kind
                && self.is_state(*n)
            {
                self.update(*v, *n)?;
            }
        }
        Ok(())
    }

    fn update(&mut self, v: ValueId, n: u32) -> Result<()> {
        let state = self.function.graph.arguments[n as usize];
        let value = self.value(v);
        let device = self.places.device(state).or(self.places.device(v)).unwrap_or(DeviceId(0));
        let stream = self.stream(device, StreamKind::Compute, 0);
        let bytes = self.bytes(state)?;
        let view = self.shared.state(&self.function.arguments[n as usize].0, bytes, device)?;
        self.entry.updates.push(StateUpdate { argument: n, value, view });
        let source = self.read(v, device, stream)?;
        if v != state && !self.places.same(v, state) {
            let (from, to) = (Place::Buffer(source.view), Place::Buffer(view));
            let seconds = self.costs.within(device, view.bytes);
            let action = Action::Copy { value, result: value, from, to, reason: CopyReason::Update, seconds };
            self.push(stream, action, vec![source.view], vec![view]);
        }
        Ok(())
    }
}
