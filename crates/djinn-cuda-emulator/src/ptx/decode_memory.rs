//! Loads, stores and addresses.

use super::alu;
use super::decode::Decoder;
use super::kernel::{Kind, LOCAL_WINDOW, Place, SHARED_WINDOW, Space, error};
use super::parse::{Operand, Result, bits};

impl Decoder {
    /// Between generic addresses and those of a part of memory.
    pub(crate) fn cvta(&mut self, line: u32, parts: &[&str], to: &Operand, from: &Operand) -> Result<()> {
        let window = match parts.iter().find(|p| matches!(**p, "shared" | "local" | "global" | "const")) {
            Some(&"shared") => SHARED_WINDOW,
            Some(&"local") => LOCAL_WINDOW,
            Some(_) => 0,
            None => return error(line, "this form of 'cvta' is not supported"),
        };
        let away = parts.contains(&"to");
        let (from, (to, _)) = (self.source(from, line)?, self.target(to, line)?);
        let shift = move |a: u64| if away { a.wrapping_sub(window) } else { a.wrapping_add(window) };
        self.alu(line, alu::one(shift), to, &[from]);
        Ok(())
    }

    /// The place that a memory operand names, its element size from the type.
    pub(crate) fn place(&mut self, line: u32, parts: &[&str], operand: &Operand) -> Result<Place> {
        let Operand::Memory(base, offset) = operand else {
            return error(line, "an address must stand here");
        };
        let ty = parts.last().copied().unwrap_or("");
        let Some(size) = bits(ty).filter(|b| (8..=64).contains(b)).map(|b| b / 8) else {
            return error(line, format!("memory of type '{ty}' is not supported"));
        };
        let mut space = Space::Generic;
        for part in parts {
            space = match *part {
                "global" | "const" => Space::Global,
                "local" => Space::Local,
                "param" => Space::Param,
                p if p == "shared" || p == "shared::cta" => Space::Shared,
                _ => space,
            };
        }
        let base = self.source(base, line)?;
        Ok(Place { space, size, base, offset: *offset })
    }

    fn modifiers(line: u32, parts: &[&str]) -> Result<u32> {
        let mut count = 1;
        for part in &parts[1..parts.len() - 1] {
            count = match *part {
                "v2" => 2,
                "v4" => 4,
                "global" | "shared" | "shared::cta" | "local" | "param" | "const" | "nc" | "volatile"
                | "relaxed" | "weak" | "acquire" | "release" | "cta" | "gpu" | "sys" | "ca" | "cg" | "cs"
                | "lu" | "cv" | "wb" | "wt" => count,
                "L1::evict_first" | "L1::no_allocate" | "L1::evict_last" => count,
                other => return error(line, format!("'.{other}' is not supported for memory")),
            };
        }
        Ok(count)
    }

    pub(crate) fn load(&mut self, line: u32, parts: &[&str], to: &Operand, from: &Operand) -> Result<()> {
        let count = Self::modifiers(line, parts)?;
        let place = self.place(line, parts, from)?;
        let list: &[Operand] = if let Operand::Vector(list) = to { list } else { std::slice::from_ref(to) };
        if list.len() != count as usize {
            return error(line, "the number of registers is not that of the type");
        }
        let signed = parts.last().is_some_and(|t| t.starts_with('s'));
        let mut targets = Vec::new();
        for operand in list {
            let (register, width) = self.target(operand, line)?;
            if width < place.size * 8 {
                return error(line, "a register is narrower than what is loaded");
            }
            targets.push((register, if width >= 64 { u64::MAX } else { (1 << width) - 1 }));
        }
        self.push(line, Kind::Load { place, signed, to: targets.into() });
        Ok(())
    }

    pub(crate) fn store(&mut self, line: u32, parts: &[&str], to: &Operand, from: &Operand) -> Result<()> {
        let count = Self::modifiers(line, parts)?;
        let place = self.place(line, parts, to)?;
        if place.space == Space::Param {
            return error(line, "calls are not supported");
        }
        let list: &[Operand] =
            if let Operand::Vector(list) = from { list } else { std::slice::from_ref(from) };
        if list.len() != count as usize {
            return error(line, "the number of registers is not that of the type");
        }
        let from = list.iter().map(|o| self.source(o, line)).collect::<Result<Vec<_>>>()?;
        self.push(line, Kind::Store { place, from: from.into() });
        Ok(())
    }
}
