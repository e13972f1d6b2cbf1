//! Constants of a plan, computed before the first run and put where they belong.

use crate::code::Source;
use crate::constants::compute;
use crate::resolve::{FunctionTable, Slot, buffer_slot};
use crate::runtime::Runtime;
use djinn_diag::{Context, Result};
use djinn_interp::Env;
use djinn_ir::{Module, ValueId};
use djinn_plan::Content;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

impl Runtime {
    /// Computes the constants of each function and puts them into their buffers.
    pub(crate) fn load_constants(&mut self) -> Result<()> {
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        let plan = Arc::clone(&self.plan);
        for (number, buffer) in plan.buffers.iter().enumerate() {
            let Content::Constant { function, value } = &buffer.content else { continue };
            let slot = buffer_slot(&plan, number)?;
            let wanted = Wanted::of(&mut wanted, &self.program, function)?;
            let id = wanted.table.value(&self.program, *value)?;
            wanted.slots.entry(id).or_default().push(slot);
        }
        for (number, (entry, code)) in plan.entries.iter().zip(&self.entries).enumerate() {
            for (i, output) in code.outputs.iter().enumerate() {
                if let Source::Constant(_) = output.source {
                    let wanted = Wanted::of(&mut wanted, &self.program, &entry.function)?;
                    wanted.outputs.entry(output.value).or_default().push((number, i));
                }
            }
        }
        for (function, wanted) in &wanted {
            let sizes = self.load_function(wanted).at(|| format!("constants of '{function}'"))?;
            for (number, entry) in plan.entries.iter().enumerate() {
                if entry.function == *function {
                    self.sizes[number] = sizes.clone();
                }
            }
        }
        Ok(())
    }

    fn load_function(&mut self, wanted: &Wanted) -> Result<Env> {
        let values: BTreeSet<ValueId> = wanted.slots.keys().chain(wanted.outputs.keys()).copied().collect();
        let (memory, entries) = (self.machine.memory_mut(), &mut self.entries);
        compute(&self.program, &wanted.table, &values, &mut |v, value| {
            for slot in wanted.slots.get(&v).into_iter().flatten() {
                memory.set_constant(slot, value)?;
            }
            for (entry, output) in wanted.outputs.get(&v).into_iter().flatten() {
                entries[*entry].outputs[*output].source = Source::Constant(Some(value.clone()));
            }
            Ok(())
        })
    }
}

/// Constants of a function: where their values go.
struct Wanted {
    table: FunctionTable,
    slots: BTreeMap<ValueId, Vec<Slot>>,
    /// Numbers of an entry and of its output.
    outputs: BTreeMap<ValueId, Vec<(usize, usize)>>,
}

impl Wanted {
    fn of<'a>(
        all: &'a mut BTreeMap<String, Wanted>,
        program: &Module,
        function: &str,
    ) -> Result<&'a mut Wanted> {
        let new = || -> Result<Wanted> {
            let table = FunctionTable::new(program, function)?;
            Ok(Wanted { table, slots: BTreeMap::new(), outputs: BTreeMap::new() })
        };
        match all.entry(function.to_owned()) {
            std::collections::btree_map::Entry::Occupied(entry) => Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => Ok(entry.insert(new()?)),
        }
    }
}
