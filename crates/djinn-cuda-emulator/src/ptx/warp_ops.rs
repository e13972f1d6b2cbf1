//! Instructions by which threads exchange values: atomics, shuffles, votes.

use super::alu::by_float;
use super::alu::by_int;
use super::decode::Decoder;
use super::kernel::{Kind, Shuffle, Update, Vote};
use super::number::{Float, Int};
use super::parse::{Operand, Result};
use half::{bf16, f16};
use std::sync::Arc;

/// Decodes one of these; gives false if it is not known.
pub(crate) fn decode(d: &mut Decoder, line: u32, parts: &[&str], operands: &[Operand]) -> Result<bool> {
    match (parts, operands) {
        (["atom", ..], [to, place, rest @ ..]) => atomic(d, line, parts, Some(to), place, rest),
        (["red", ..], [place, rest @ ..]) => atomic(d, line, parts, None, place, rest),
        (["shfl", "sync", mode, "b32"], [to, from, lane, clamp, members]) => {
            let mode = match *mode {
                "up" => Shuffle::Up,
                "down" => Shuffle::Down,
                "bfly" => Shuffle::Butterfly,
                "idx" => Shuffle::Index,
                _ => return Ok(false),
            };
            let (to, valid) = match to {
                Operand::Pair(to, valid) => (d.target(to, line)?.0, Some(d.target(valid, line)?.0)),
                to => (d.target(to, line)?.0, None),
            };
            let (from, lane) = (d.source(from, line)?, d.source(lane, line)?);
            let (clamp, members) = (d.source(clamp, line)?, d.source(members, line)?);
            d.push(line, Kind::Shuffle { mode, to, valid, from, lane, clamp, members });
            Ok(true)
        }
        (["vote", "sync", mode, _], [to, from, members]) => {
            let mode = match *mode {
                "all" => Vote::All,
                "any" => Vote::Any,
                "uni" => Vote::Uniform,
                "ballot" => Vote::Ballot,
                _ => return Ok(false),
            };
            let (from, negate) = match from {
                Operand::Name(name, negate) => (Operand::Name(name.clone(), false), *negate),
                other => (other.clone(), false),
            };
            let (to, from) = (d.target(to, line)?.0, d.source(&from, line)?);
            let members = d.source(members, line)?;
            d.push(line, Kind::Vote { mode, to, from, negate, members });
            Ok(true)
        }
        (["redux", "sync", name, ty], [to, from, members]) => {
            let Some(update) = update(name, ty) else { return Ok(false) };
            let (to, from) = (d.target(to, line)?.0, d.source(from, line)?);
            let members = d.source(members, line)?;
            d.push(line, Kind::Reduce { update, to, from, members });
            Ok(true)
        }
        (["activemask", "b32"], [to]) => {
            let to = d.target(to, line)?.0;
            d.push(line, Kind::ActiveMask { to });
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn atomic(
    d: &mut Decoder,
    line: u32,
    parts: &[&str],
    to: Option<&Operand>,
    place: &Operand,
    rest: &[Operand],
) -> Result<bool> {
    let names = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];
    let Some(name) = parts.iter().find(|p| names.contains(*p)) else { return Ok(false) };
    let Some(update) = update(name, parts.last().copied().unwrap_or("")) else { return Ok(false) };
    let place = d.place(line, parts, place)?;
    let operands = match rest {
        [b] => [d.source(b, line)?; 2],
        [b, c] if *name == "cas" => [d.source(b, line)?, d.source(c, line)?],
        _ => return Ok(false),
    };
    let to = to.map(|to| d.target(to, line)).transpose()?.map(|t| t.0);
    d.push(line, Kind::Atomic { place, update, to, operands });
    Ok(true)
}

/// What an atomic operation makes of the old word.
fn update(name: &str, ty: &str) -> Option<Update> {
    if name == "add"
        && let Some(found) = by_float!(ty, T => {
            let f: Update = Arc::new(|old, b, _| T::of(old).add(T::of(b)).put());
            f
        })
    {
        return Some(found);
    }
    by_int!(ty, T => {
        let f: Update = match name {
            "add" => Arc::new(|old, b, _| T::of(old).wrapping_add(T::of(b)).put()),
            "min" => Arc::new(|old, b, _| T::of(old).min(T::of(b)).put()),
            "max" => Arc::new(|old, b, _| T::of(old).max(T::of(b)).put()),
            "and" => Arc::new(|old, b, _| T::of(old & b).put()),
            "or" => Arc::new(|old, b, _| T::of(old | b).put()),
            "xor" => Arc::new(|old, b, _| T::of(old ^ b).put()),
            "exch" => Arc::new(|_, b, _| T::of(b).put()),
            "cas" => Arc::new(|old, b, c| if T::of(old) == T::of(b) { T::of(c).put() } else { old }),
            "inc" => Arc::new(|old, b, _| if T::of(old) >= T::of(b) { 0 } else { old + 1 }),
            "dec" => Arc::new(|old, b, _| if old == 0 || T::of(old) > T::of(b) { T::of(b).put() } else { old - 1 }),
            _ => return None,
        };
        f
    })
}
