//! Plans as bytes: JSON for people, a binary form for speed. Both refuse other versions and survive any input.
//!
//! Binary form: the magic `DJINNPLN`, the version and the length of the payload (little-endian, 4 and 8 bytes), the BLAKE3
//! hash of the payload (32 bytes), the payload in Postcard encoding.

use djinn_diag::{Result, clipped, input, internal};
use serde::Deserialize;

use crate::plan::{FORMAT_VERSION, Plan};

/// First bytes of the binary form.
pub const MAGIC: &[u8; 8] = b"DJINNPLN";

/// Bytes before the payload of the binary form.
const HEADER: usize = 8 + 4 + 8 + 32;

/// The plan as JSON with line breaks.
pub fn to_json(plan: &Plan) -> Result<String> {
    serde_json::to_string_pretty(plan)
        .map_err(|e| internal("plan.encode", format!("the plan cannot be written as JSON: {e}")))
}

/// Reads JSON. The plan is well formed, but not checked.
pub fn from_json(text: &str) -> Result<Plan> {
    #[derive(Deserialize)]
    struct Versioned {
        version: Option<u64>,
    }
    let malformed = |e: serde_json::Error| {
        input("plan.format", format!("this is no plan in JSON: {}", clipped(&e.to_string(), 200, 60)))
    };
    let versioned: Versioned = serde_json::from_str(text).map_err(malformed)?;
    match versioned.version {
        Some(version) if version == u64::from(FORMAT_VERSION) => {}
        Some(version) => return Err(other_version(version)),
        None => return Err(input("plan.format", "this is no plan in JSON: it has no `version`")),
    }
    serde_json::from_str(text).map_err(malformed)
}

/// The plan in the binary form.
pub fn to_binary(plan: &Plan) -> Result<Vec<u8>> {
    let payload = postcard::to_allocvec(plan)
        .map_err(|e| internal("plan.encode", format!("the plan cannot be written in binary form: {e}")))?;
    let mut out = Vec::with_capacity(HEADER + payload.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    out.extend_from_slice(blake3::hash(&payload).as_bytes());
    out.extend_from_slice(&payload);
    Ok(out)
}

/// Reads the binary form. The plan is well formed, but not checked.
pub fn from_binary(bytes: &[u8]) -> Result<Plan> {
    let damaged = |what: String| input("plan.format", what).help("make the plan anew");
    let Some(rest) = bytes.strip_prefix(MAGIC) else {
        return Err(damaged("this is no plan in binary form: it does not begin with DJINNPLN".into()));
    };
    let short = || damaged(format!("the plan is cut off: {} bytes do not even hold its header", bytes.len()));
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let version = u32::from_le_bytes(*version);
    if version != FORMAT_VERSION {
        return Err(other_version(version.into()));
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let (hash, payload) = rest.split_first_chunk::<32>().ok_or_else(short)?;
    let length = u64::from_le_bytes(*length);
    if length != payload.len() as u64 {
        return Err(damaged(format!("the plan shall have {length} bytes, but {} are there", payload.len())));
    }
    if blake3::hash(payload).as_bytes() != hash {
        return Err(damaged("the plan is damaged: its bytes do not match their checksum".into()));
    }
    // What is allocated is bounded by the payload: every element takes at least one of its bytes.
    match postcard::take_from_bytes::<Plan>(payload) {
        Ok((plan, [])) => Ok(plan),
        Ok((_, rest)) => Err(damaged(format!("{} bytes follow the plan", rest.len()))),
        Err(e) => Err(damaged(format!("the plan is damaged: {e}"))),
    }
}

fn other_version(version: u64) -> Box<djinn_diag::Diagnostic> {
    input(
        "plan.version",
        format!("the plan has format version {version}, this Djinn reads {FORMAT_VERSION} only"),
    )
    .help("make the plan anew with this version of Djinn")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn both_forms_give_the_plan_back() {
        let size = sample::Size { devices: 2, streams: 2, kernels: 60 };
        for plan in [sample::two_devices(), sample::empty(), sample::random(size, 1)] {
            let json = to_json(&plan).expect("writes");
            assert_eq!(from_json(&json).expect("reads"), plan);
            let bytes = to_binary(&plan).expect("writes");
            assert_eq!(from_binary(&bytes).expect("reads"), plan);
            assert!(bytes.len() * 4 < json.len() || json.len() < 500);
        }
    }

    #[test]
    fn other_versions_are_named() {
        let mut plan = sample::two_devices();
        plan.version = FORMAT_VERSION + 1;
        let json = to_json(&plan).expect("writes").replace("\"devices\"", "\"machines\"");
        assert_eq!(from_json(&json).expect_err("other").code, "plan.version");
        let mut bytes = to_binary(&plan).expect("writes");
        bytes[8] = 9;
        let e = from_binary(&bytes).expect_err("other");
        assert_eq!(e.code, "plan.version");
        assert!(e.message.contains("version 9"), "{e}");
    }

    #[test]
    fn damaged_bytes_are_refused_without_panic() {
        let plan = sample::two_devices();
        let bytes = to_binary(&plan).expect("writes");
        for cut in 0..bytes.len() {
            assert!(from_binary(&bytes[..cut]).is_err());
        }
        let mut rng = sample::Random(7);
        for _ in 0..2000 {
            let mut broken = bytes.clone();
            let at = rng.below(broken.len());
            broken[at] ^= 1 << rng.below(8);
            assert!(from_binary(&broken).is_err(), "byte {at}");
        }
        let json = to_json(&plan).expect("writes");
        for _ in 0..500 {
            let mut broken = json.clone().into_bytes();
            let at = rng.below(broken.len());
            broken[at] = rng.below(128) as u8;
            let _ = from_json(&String::from_utf8_lossy(&broken));
            let _ = from_json(&json[..at]);
        }
        for hostile in ["", "null", "[]", "{}", "{\"version\": -1}", "{\"version\": 2}", &"[".repeat(1 << 20)]
        {
            assert!(from_json(hostile).is_err());
        }
    }

    #[test]
    fn hostile_payloads_with_a_right_checksum_are_bounded() {
        let wrapped = |payload: &[u8]| {
            let mut out = MAGIC.to_vec();
            out.extend(FORMAT_VERSION.to_le_bytes());
            out.extend((payload.len() as u64).to_le_bytes());
            out.extend(blake3::hash(payload).as_bytes());
            out.extend(payload);
            out
        };
        let bytes = to_binary(&sample::two_devices()).expect("writes");
        let mut longer = bytes[HEADER..].to_vec();
        longer.push(0);
        assert!(from_binary(&wrapped(&longer)).expect_err("more bytes").message.contains("1 bytes follow"));
        // A list that claims very many elements.
        let mut huge = vec![1, 0];
        huge.extend([0xff; 9]);
        huge.push(1);
        assert!(from_binary(&wrapped(&huge)).is_err());
        let mut rng = sample::Random(8);
        for _ in 0..2000 {
            let mut broken = bytes[HEADER..].to_vec();
            for _ in 0..1 + rng.below(4) {
                let at = rng.below(broken.len());
                broken[at] = rng.below(256) as u8;
            }
            // What can be read can be checked, printed and simulated, whatever it says.
            if let Ok(plan) = from_binary(&wrapped(&broken)) {
                let _ = (crate::check(&plan), crate::text(&plan), to_json(&plan));
                for entry in 0..plan.entries.len() {
                    let _ = crate::simulate(&plan, entry);
                }
            }
        }
    }
}
