//! Random damage to program JSON, deterministic in its seed.

use serde_json::Value;

/// A small pseudo-random generator (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `n` (0 for `n` = 0).
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        if n == 0 { 0 } else { (self.0 % n as u64) as usize }
    }
}

/// Values to put in place of a number.
const NUMBERS: &[i64] =
    &[0, 1, -1, 2, 3, 7, 13, 64, -2, 1 << 31, 1 << 40, 1 << 62, i64::MAX, i64::MIN, -(1 << 40), 9, 29, 99];

fn count(v: &Value) -> usize {
    1 + match v {
        Value::Array(a) => a.iter().map(count).sum(),
        Value::Object(o) => o.values().map(count).sum(),
        _ => 0,
    }
}

/// Node number `n` in depth-first order.
fn node(v: &mut Value, n: usize) -> Option<&mut Value> {
    fn walk<'a>(v: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
        if *n == 0 {
            return Some(v);
        }
        *n -= 1;
        match v {
            Value::Array(a) => a.iter_mut().find_map(|x| walk(x, n)),
            Value::Object(o) => o.values_mut().find_map(|x| walk(x, n)),
            _ => None,
        }
    }
    let mut n = n;
    walk(v, &mut n)
}

fn same_kind(a: &Value, b: &Value) -> bool {
    (a.is_string() && b.is_string())
        || (a.is_number() && b.is_number())
        || (a.is_array() && b.is_array())
        || (a.is_object() && b.is_object())
}

/// A copy of some value of the same kind as `target`, if a few attempts find one.
fn donor(program: &mut Value, target: &Value, r: &mut Random) -> Option<Value> {
    let total = count(program);
    (0..40).find_map(|_| node(program, r.below(total)).filter(|v| same_kind(v, target)).cloned())
}

/// Damages one place of the program.
pub(crate) fn mutate(program: &mut Value, r: &mut Random) {
    let at = r.below(count(program));
    let Some(old) = node(program, at).cloned() else { return };
    let donor = donor(program, &old, r);
    let Some(target) = node(program, at) else { return };
    let pick = r.below(12);
    match target {
        Value::Number(_) => *target = Value::from(NUMBERS[r.below(NUMBERS.len())]),
        Value::String(s) if pick < 2 && !s.is_empty() => {
            let mut chars: Vec<char> = s.chars().collect();
            let at = r.below(chars.len());
            chars[at] = ['x', '(', ')', ',', '0', '9', '_', '\'', 'é', '.'][r.below(10)];
            *s = chars.into_iter().collect();
        }
        Value::Array(a) if pick < 8 && !a.is_empty() => {
            let (i, j) = (r.below(a.len()), r.below(a.len()));
            match pick {
                0 | 1 => drop(a.remove(i)),
                2 | 3 => a.swap(i, j),
                4 => a.truncate(i),
                _ => a.push(a[i].clone()),
            }
        }
        Value::Object(o) if pick < 2 => {
            let key = o.keys().nth(r.below(o.len())).cloned();
            key.and_then(|k| o.remove(&k));
        }
        Value::Bool(b) => *b = !*b,
        _ => {
            if let Some(donor) = donor {
                *target = donor;
            }
        }
    }
}
