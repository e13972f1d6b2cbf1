//! Runs a kernel: blocks one after the other, the warps of a block up to the next barrier.
//!
//! A warp holds groups of lanes, each at an instruction; the group that is furthest behind goes first, so that lanes
//! which parted come together again. An instruction is done for all lanes of a group at once.

use super::alu::Row;
use super::decode::DYNAMIC;
use super::fault::{Fault, Launch, Trouble};
use super::kernel::{
    Kernel, Kind, LOCAL_WINDOW, MODULE_WINDOW, Place, SHARED_WINDOW, Shuffle, Space, Vote, WINDOW,
};
use super::memory::{Memory, Refusal, get, put};

/// Lanes at an instruction.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    at: usize,
    mask: u32,
}

/// A warp's registers and where its lanes are.
struct Warp {
    first: u32,
    registers: Vec<Row>,
    local: Vec<u8>,
    groups: Vec<Lanes>,
    /// Lanes at a barrier.
    waiting: Option<Lanes>,
    /// Lanes that have not ended.
    alive: u32,
}

/// A kernel that runs.
struct Run<'a, M> {
    kernel: &'a Kernel,
    launch: &'a Launch,
    params: &'a [u8],
    memory: &'a mut M,
    shared: Vec<u8>,
    hints: Vec<usize>,
    done: u64,
    block: [u32; 3],
}

type Step<T> = Result<T, Trouble>;

/// Runs a kernel to its end; gives the instructions of all threads together.
///
/// # Errors
/// What stopped it; what it wrote until then stays.
pub fn run<M: Memory>(kernel: &Kernel, launch: &Launch, params: &[u8], memory: &mut M) -> Result<u64, Fault> {
    let wrong = Fault { trouble: Trouble::Launch, line: 0, block: [0; 3], thread: 0 };
    let threads = launch.block.iter().map(|n| u64::from(*n)).product::<u64>();
    let shared = kernel.shared.next_multiple_of(16) + u64::from(launch.dynamic_shared);
    if threads == 0 || threads > 1024 || params.len() < kernel.param_bytes() || shared > 227 * 1024 {
        return Err(wrong);
    }
    if launch.grid.contains(&0) {
        return Err(wrong);
    }
    let threads = threads as u32;
    let mut run = Run {
        kernel,
        launch,
        params,
        memory,
        shared: vec![0xff; shared as usize],
        hints: vec![0; kernel.code.len()],
        done: 0,
        block: [0; 3],
    };
    let mut warps: Vec<Warp> = (0..threads.div_ceil(32)).map(|w| run.warp(w * 32)).collect();
    let blocks = launch.grid.iter().map(|n| u64::from(*n)).product::<u64>();
    for n in 0..blocks {
        let n = if launch.reverse { blocks - 1 - n } else { n };
        let (x, y) = (u64::from(launch.grid[0]), u64::from(launch.grid[1]));
        run.block = [(n % x) as u32, (n / x % y) as u32, (n / x / y) as u32];
        run.block(&mut warps, threads)?;
    }
    Ok(run.done)
}

impl<M: Memory> Run<'_, M> {
    fn warp(&self, first: u32) -> Warp {
        let mut registers = vec![[0u64; 32]; self.kernel.registers];
        for (register, value) in &self.kernel.constants {
            registers[*register as usize] = [*value; 32];
        }
        let local = vec![0xff; self.kernel.local as usize * 32];
        Warp { first, registers, local, groups: Vec::new(), waiting: None, alive: 0 }
    }

    fn special(&self, name: &str, thread: u32) -> u64 {
        let (b, g) = (self.launch.block, self.launch.grid);
        u64::from(match name {
            "%tid.x" => thread % b[0],
            "%tid.y" => thread / b[0] % b[1],
            "%tid.z" => thread / b[0] / b[1],
            "%ntid.x" => b[0],
            "%ntid.y" => b[1],
            "%ntid.z" => b[2],
            "%ctaid.x" => self.block[0],
            "%ctaid.y" => self.block[1],
            "%ctaid.z" => self.block[2],
            "%nctaid.x" => g[0],
            "%nctaid.y" => g[1],
            "%nctaid.z" => g[2],
            "%laneid" => thread % 32,
            "%warpid" => thread / 32,
            "%nwarpid" => (b[0] * b[1] * b[2]).div_ceil(32),
            "%lanemask_lt" => (1u32 << (thread % 32)) - 1,
            "%lanemask_eq" => 1u32 << (thread % 32),
            DYNAMIC => self.kernel.shared.next_multiple_of(16) as u32,
            _ => 0,
        })
    }

    fn block(&mut self, warps: &mut [Warp], threads: u32) -> Result<(), Fault> {
        self.shared.fill(0xff);
        for warp in warps.iter_mut() {
            for (register, name) in &self.kernel.special {
                let row = std::array::from_fn(|lane| self.special(name, warp.first + lane as u32));
                warp.registers[*register as usize] = row;
            }
            let count = (threads - warp.first).min(32);
            warp.alive = if count == 32 { u32::MAX } else { (1 << count) - 1 };
            warp.groups.clear();
            warp.groups.push(Lanes { at: 0, mask: warp.alive });
            warp.waiting = None;
        }
        loop {
            for n in 0..warps.len() {
                let n = if self.launch.reverse { warps.len() - 1 - n } else { n };
                self.until_barrier(&mut warps[n])?;
            }
            if !self.kernel.has_barrier || warps.iter().all(|w| w.alive == 0) {
                return Ok(());
            }
            self.pass_barrier(warps)?;
        }
    }

    /// All threads of the block must be at the same barrier.
    fn pass_barrier(&self, warps: &mut [Warp]) -> Result<(), Fault> {
        let at = warps.iter().find_map(|w| w.waiting).map_or(0, |w| w.at);
        for warp in warps.iter_mut() {
            let count = warps_lanes(warp.first, self.launch);
            match warp.waiting.take() {
                Some(lanes) if lanes.at == at && lanes.mask == count => {
                    warp.groups.push(Lanes { at: at + 1, mask: lanes.mask });
                }
                _ => return Err(self.fault(Trouble::Divergent, at, warp.first)),
            }
        }
        Ok(())
    }

    fn fault(&self, trouble: Trouble, at: usize, thread: u32) -> Fault {
        let line = self.kernel.code.get(at).map_or(0, |i| i.line);
        Fault { trouble, line, block: self.block, thread }
    }

    /// Runs a warp until no lane can go on.
    fn until_barrier(&mut self, warp: &mut Warp) -> Result<(), Fault> {
        while let Some(lanes) = furthest_behind(&mut warp.groups) {
            let until = warp.groups.iter().map(|g| g.at).min().unwrap_or(usize::MAX);
            self.group(warp, lanes, until)?;
        }
        Ok(())
    }

    /// Runs lanes until they part, stop, or come to where others are.
    fn group(&mut self, warp: &mut Warp, lanes: Lanes, until: usize) -> Result<(), Fault> {
        let Lanes { mut at, mask } = lanes;
        let count = u64::from(mask.count_ones());
        let kernel = self.kernel;
        loop {
            if at >= until {
                warp.groups.push(Lanes { at, mask });
                return Ok(());
            }
            self.done += count;
            if self.done > self.launch.limit {
                return Err(self.fault(Trouble::Limit, at, warp.first + mask.trailing_zeros()));
            }
            let instruction = &kernel.code[at];
            let active = match instruction.guard {
                None => mask,
                Some((p, negated)) => {
                    mask & (bits(&warp.registers[p as usize]) ^ if negated { u32::MAX } else { 0 })
                }
            };
            if active == 0 {
                at += 1;
                continue;
            }
            match &instruction.kind {
                Kind::Alu(f, registers) => f(&mut warp.registers, active, *registers),
                Kind::Branch(target) => {
                    if active == mask {
                        at = *target;
                    } else {
                        warp.groups.push(Lanes { at: *target, mask: active });
                        warp.groups.push(Lanes { at: at + 1, mask: mask & !active });
                        return Ok(());
                    }
                    continue;
                }
                Kind::Exit => {
                    warp.alive &= !active;
                    if active == mask {
                        return Ok(());
                    }
                    warp.groups.push(Lanes { at: at + 1, mask: mask & !active });
                    return Ok(());
                }
                Kind::Barrier => {
                    if active != mask || warp.waiting.is_some_and(|w| w.at != at) {
                        return Err(self.fault(Trouble::Divergent, at, warp.first + mask.trailing_zeros()));
                    }
                    let before = warp.waiting.map_or(0, |w| w.mask);
                    warp.waiting = Some(Lanes { at, mask: before | mask });
                    return Ok(());
                }
                other => self
                    .other(warp, other, active, at)
                    .map_err(|(trouble, lane)| self.fault(trouble, at, warp.first + lane))?,
            }
            at += 1;
        }
    }

    fn other(&mut self, warp: &mut Warp, kind: &Kind, active: u32, at: usize) -> Result<(), (Trouble, u32)> {
        match kind {
            Kind::Load { place, signed, to } => {
                each(active, |lane| self.load(warp, place, *signed, to, lane, at))
            }
            Kind::Store { place, from } => each(active, |lane| {
                let address = self.address(warp, place, lane, from.len())?;
                for (i, register) in from.iter().enumerate() {
                    let value = warp.registers[*register as usize][lane];
                    self.store_one(warp, place, address + i as u64 * u64::from(place.size), value, lane, at)?;
                }
                Ok(())
            }),
            Kind::Atomic { place, update, to, operands } => each(active, |lane| {
                let address = self.address(warp, place, lane, 1)?;
                let old = self.load_one(warp, place, address, lane, at)?;
                let [b, c] = operands.map(|r| warp.registers[r as usize][lane]);
                self.store_one(warp, place, address, update(old, b, c), lane, at)?;
                if let Some(to) = to {
                    warp.registers[*to as usize][lane] = old;
                }
                Ok(())
            }),
            Kind::WarpBarrier | Kind::Nothing => Ok(()),
            other => exchange(warp, other, active),
        }
    }

    fn load(
        &mut self,
        warp: &mut Warp,
        place: &Place,
        signed: bool,
        to: &[(u32, u64)],
        lane: usize,
        at: usize,
    ) -> Step<()> {
        let address = self.address(warp, place, lane, to.len())?;
        for (i, (register, mask)) in to.iter().enumerate() {
            let value = self.load_one(warp, place, address + i as u64 * u64::from(place.size), lane, at)?;
            let unused = 64 - 8 * place.size;
            let value = if signed { ((value << unused) as i64 >> unused) as u64 } else { value };
            warp.registers[*register as usize][lane] = value & mask;
        }
        Ok(())
    }

    /// The address of an access of so many elements, which must be a multiple of its size.
    fn address(&self, warp: &Warp, place: &Place, lane: usize, count: usize) -> Step<u64> {
        let address = warp.registers[place.base as usize][lane].wrapping_add_signed(place.offset);
        let size = place.size * count as u32;
        if !address.is_multiple_of(u64::from(size)) && place.space != Space::Param {
            return Err(Trouble::Misaligned { address, size });
        }
        Ok(address)
    }

    #[inline]
    fn load_one(&mut self, warp: &Warp, place: &Place, address: u64, lane: usize, at: usize) -> Step<u64> {
        let size = place.size;
        let (space, offset) = part(place.space, address);
        let found = match space {
            Space::Shared => get(&self.shared, offset, size),
            Space::Local => get(local(&warp.local, lane), offset, size),
            Space::Param => get(self.params, offset, size),
            _ if (MODULE_WINDOW..MODULE_WINDOW + WINDOW).contains(&address) => {
                get(&self.kernel.module, address - MODULE_WINDOW, size)
            }
            _ => {
                return self
                    .memory
                    .load(address, size, &mut self.hints[at])
                    .map_err(|r| refused(r, address, size, false));
            }
        };
        found.ok_or(Trouble::Illegal { address, size, store: false })
    }

    #[inline]
    fn store_one(
        &mut self,
        warp: &mut Warp,
        place: &Place,
        address: u64,
        value: u64,
        lane: usize,
        at: usize,
    ) -> Step<()> {
        let size = place.size;
        let (space, offset) = part(place.space, address);
        let done = match space {
            Space::Shared => put(&mut self.shared, offset, size, value),
            Space::Local => {
                let each = warp.local.len() / 32;
                put(&mut warp.local[lane * each..(lane + 1) * each], offset, size, value)
            }
            Space::Param => None,
            _ => {
                let stored = self.memory.store(address, size, value, &mut self.hints[at]);
                return stored.map_err(|r| refused(r, address, size, true));
            }
        };
        done.ok_or(Trouble::Illegal { address, size, store: true })
    }
}

fn warps_lanes(first: u32, launch: &Launch) -> u32 {
    let threads: u32 = launch.block.iter().product();
    let count = threads.saturating_sub(first).min(32);
    if count == 32 { u32::MAX } else { (1 << count) - 1 }
}

fn local(bytes: &[u8], lane: usize) -> &[u8] {
    let each = bytes.len() / 32;
    &bytes[lane * each..(lane + 1) * each]
}

fn refused(refusal: Refusal, address: u64, size: u32, store: bool) -> Trouble {
    match refusal {
        Refusal::Illegal => Trouble::Illegal { address, size, store },
        Refusal::Misaligned => Trouble::Misaligned { address, size },
    }
}

/// The part of memory that an address is in, and its place there.
#[inline]
fn part(space: Space, address: u64) -> (Space, u64) {
    if space != Space::Generic {
        return (space, address);
    }
    match address {
        a if (SHARED_WINDOW..SHARED_WINDOW + WINDOW).contains(&a) => (Space::Shared, a - SHARED_WINDOW),
        a if (LOCAL_WINDOW..LOCAL_WINDOW + WINDOW).contains(&a) => (Space::Local, a - LOCAL_WINDOW),
        a => (Space::Global, a),
    }
}

/// Takes out the group with the lowest instruction, joined with those at the same.
fn furthest_behind(groups: &mut Vec<Lanes>) -> Option<Lanes> {
    let at = groups.iter().map(|g| g.at).min()?;
    let mask = groups.iter().filter(|g| g.at == at).fold(0, |m, g| m | g.mask);
    groups.retain(|g| g.at != at);
    Some(Lanes { at, mask })
}

/// The lowest bits of a row.
#[inline]
fn bits(row: &Row) -> u32 {
    row.iter().enumerate().fold(0, |m, (lane, word)| m | ((*word as u32 & 1) << lane))
}

#[inline]
fn each(mask: u32, mut f: impl FnMut(usize) -> Step<()>) -> Result<(), (Trouble, u32)> {
    let mut left = mask;
    while left != 0 {
        let lane = left.trailing_zeros();
        f(lane as usize).map_err(|trouble| (trouble, lane))?;
        left &= left - 1;
    }
    Ok(())
}

/// Instructions by which the lanes of a warp see one another's values.
fn exchange(warp: &mut Warp, kind: &Kind, active: u32) -> Result<(), (Trouble, u32)> {
    match kind {
        Kind::Shuffle { mode, to, valid, from, lane, clamp, members } => {
            check_members(warp, *members, active)?;
            shuffle(warp, (*mode, *to, *valid, *from, *lane, *clamp), active);
            Ok(())
        }
        Kind::Vote { mode, to, from, negate, members } => {
            check_members(warp, *members, active)?;
            let votes = (bits(&warp.registers[*from as usize]) ^ if *negate { u32::MAX } else { 0 }) & active;
            let result = match mode {
                Vote::All => u64::from(votes == active),
                Vote::Any => u64::from(votes != 0),
                Vote::Uniform => u64::from(votes == 0 || votes == active),
                Vote::Ballot => u64::from(votes),
            };
            each(active, |lane| {
                warp.registers[*to as usize][lane] = result;
                Ok(())
            })
        }
        Kind::Reduce { update, to, from, members } => {
            check_members(warp, *members, active)?;
            let row = warp.registers[*from as usize];
            let mut values = (0..32).filter(|l| active >> l & 1 == 1).map(|l: usize| row[l]);
            let first = values.next().unwrap_or(0);
            let total = values.fold(first, |a, b| update(a, b, b));
            each(active, |lane| {
                warp.registers[*to as usize][lane] = total;
                Ok(())
            })
        }
        Kind::ActiveMask { to } => each(active, |lane| {
            warp.registers[*to as usize][lane] = u64::from(active);
            Ok(())
        }),
        _ => Err((Trouble::Trap, active.trailing_zeros())),
    }
}

fn check_members(warp: &Warp, members: u32, active: u32) -> Result<(), (Trouble, u32)> {
    let lane = active.trailing_zeros();
    let members = warp.registers[members as usize][lane as usize] as u32;
    if members & warp.alive == active { Ok(()) } else { Err((Trouble::Members, lane)) }
}

/// PTX ISA, "shfl.sync".
fn shuffle(
    warp: &mut Warp,
    (mode, to, valid, from, lane, clamp): (Shuffle, u32, Option<u32>, u32, u32, u32),
    active: u32,
) {
    let values = warp.registers[from as usize];
    let (lanes, clamps) = (warp.registers[lane as usize], warp.registers[clamp as usize]);
    for own in 0..32u32 {
        if active >> own & 1 == 0 {
            continue;
        }
        let (b, c) = (lanes[own as usize] as u32 & 31, clamps[own as usize] as u32);
        let (end, segment) = (c & 31, c >> 8 & 31);
        let (low, high) = (own & segment, own & segment | end & !segment);
        let (source, inside) = match mode {
            Shuffle::Up => (own.wrapping_sub(b), own as i32 - b as i32 >= high as i32),
            Shuffle::Down => (own + b, own + b <= high),
            Shuffle::Butterfly => (own ^ b, own ^ b <= high),
            Shuffle::Index => (low | b & !segment, low | b & !segment <= high),
        };
        let source = if inside { source } else { own };
        warp.registers[to as usize][own as usize] = values[source as usize & 31] & 0xffff_ffff;
        if let Some(valid) = valid {
            warp.registers[valid as usize][own as usize] = u64::from(inside);
        }
    }
}
