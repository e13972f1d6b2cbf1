//! What an engine depends on, as one digest.

use std::collections::BTreeMap;
use std::fmt;

/// Says what is hashed, and in which form.
const DOMAIN: &str = "djinn engine key 1";

/// Compute capability of a device, such as 9.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability {
    /// The number before the point.
    pub major: u32,
    /// The number after the point.
    pub minor: u32,
}

/// The sizes of one symbol that an engine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SizeRange {
    /// The smallest one.
    pub min: u64,
    /// The one that the engine is fastest for.
    pub opt: u64,
    /// The largest one.
    pub max: u64,
}

/// Everything that an engine depends on. Two engines of the same key can stand in for each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineKey {
    /// Structural hash of the region: operations, types, attributes, and the names of symbols that `profiles` uses.
    pub region: [u8; 32],
    /// Hash of the values of weights that are part of the engine; `None` if all of them come in when it runs.
    pub weights: Option<[u8; 32]>,
    /// The library that builds and runs it.
    pub library: String,
    /// The exact version of the library.
    pub version: String,
    /// Operating system and processor of the machine that runs it; see [`EngineKey::this_platform`].
    pub platform: String,
    /// The devices that it runs on, in any order.
    pub capabilities: Vec<Capability>,
    /// The precision that was asked for.
    pub precision: String,
    /// Optimisation profiles in their order: sizes by symbol.
    pub profiles: Vec<BTreeMap<String, SizeRange>>,
    /// Every option of the builder, and of what prepares the region for it, that changes the engine.
    pub options: BTreeMap<String, String>,
}

/// Digest of an [`EngineKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl EngineKey {
    /// The platform that this program runs on.
    pub fn this_platform() -> String {
        format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
    }

    /// The digest of all fields; the order of capabilities and their repetition do not count.
    pub fn digest(&self) -> KeyDigest {
        let mut hasher = Fields(blake3::Hasher::new());
        hasher.bytes(DOMAIN.as_bytes());
        hasher.bytes(&self.region);
        hasher.bytes(self.weights.as_ref().map_or(&[][..], |w| w));
        for text in [&self.library, &self.version, &self.platform, &self.precision] {
            hasher.bytes(text.as_bytes());
        }
        let mut capabilities = self.capabilities.clone();
        capabilities.sort_unstable();
        capabilities.dedup();
        hasher.number(capabilities.len() as u64);
        for capability in capabilities {
            hasher.number(capability.major.into());
            hasher.number(capability.minor.into());
        }
        hasher.number(self.profiles.len() as u64);
        for profile in &self.profiles {
            hasher.number(profile.len() as u64);
            for (symbol, range) in profile {
                hasher.bytes(symbol.as_bytes());
                [range.min, range.opt, range.max].into_iter().for_each(|n| hasher.number(n));
            }
        }
        hasher.number(self.options.len() as u64);
        for (name, value) in &self.options {
            hasher.bytes(name.as_bytes());
            hasher.bytes(value.as_bytes());
        }
        KeyDigest(*hasher.0.finalize().as_bytes())
    }
}

impl KeyDigest {
    /// The digest that its hexadecimal digits name.
    pub(crate) fn parse(digits: &str) -> Option<KeyDigest> {
        blake3::Hash::from_hex(digits).ok().map(|hash| KeyDigest(*hash.as_bytes()))
    }

    /// Enough digits to tell engines apart in messages.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl From<&EngineKey> for KeyDigest {
    fn from(key: &EngineKey) -> KeyDigest {
        key.digest()
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

/// A hash of fields, none of which can be taken for a part of its neighbour.
struct Fields(blake3::Hasher);

impl Fields {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn range(min: u64, opt: u64, max: u64) -> SizeRange {
        SizeRange { min, opt, max }
    }

    fn key() -> EngineKey {
        EngineKey {
            region: [1; 32],
            weights: None,
            library: "tensorrt-rtx".into(),
            version: "1.7.1".into(),
            platform: "linux-x86_64".into(),
            capabilities: vec![Capability { major: 8, minor: 9 }, Capability { major: 9, minor: 0 }],
            precision: "fp16".into(),
            profiles: vec![
                BTreeMap::from([("batch".into(), range(1, 1, 8)), ("seq".into(), range(1, 128, 1024))]),
                BTreeMap::from([("batch".into(), range(1, 8, 8)), ("seq".into(), range(1, 1, 1))]),
            ],
            options: BTreeMap::from([("level".into(), "3".into()), ("tf32".into(), "off".into())]),
        }
    }

    #[test]
    fn every_field_matters() {
        let changes: &[fn(&mut EngineKey)] = &[
            |_| {},
            |k| k.region[31] ^= 1,
            |k| k.weights = Some([0; 32]),
            |k| k.weights = Some([1; 32]),
            |k| k.library = "tensorrt".into(),
            |k| k.version = "1.7.2".into(),
            // What moves from one field to the next.
            |k| (k.library, k.version) = ("tensorrt-rtx1".into(), ".7.1".into()),
            |k| k.platform = "linux-aarch64".into(),
            |k| k.capabilities[0].minor = 6,
            |k| k.capabilities[0].major = 7,
            |k| k.capabilities.truncate(1),
            |k| k.capabilities.clear(),
            |k| k.precision = "bf16".into(),
            |k| k.profiles[0].extend([("seq".into(), range(2, 128, 1024))]),
            |k| k.profiles[0].extend([("seq".into(), range(1, 127, 1024))]),
            |k| k.profiles[0].extend([("seq".into(), range(1, 128, 1023))]),
            |k| k.profiles[0].retain(|symbol, _| symbol != "seq"),
            |k| k.profiles.swap(0, 1),
            |k| k.profiles.truncate(1),
            |k| k.profiles.clear(),
            |k| {
                let moved = std::mem::take(&mut k.profiles[1]);
                k.profiles[0].extend(moved);
            },
            |k| k.options.extend([("level".into(), "4".into())]),
            |k| k.options.extend([("levels".into(), "3".into())]),
            |k| k.options.retain(|name, _| name != "level"),
            |k| k.options.clear(),
        ];
        let digests: BTreeSet<KeyDigest> = changes
            .iter()
            .map(|change| {
                let mut key = key();
                change(&mut key);
                key.digest()
            })
            .collect();
        assert_eq!(digests.len(), changes.len());
    }

    #[test]
    fn a_digest_is_the_same_on_every_machine_and_reads_back() {
        let mut other = key();
        other.capabilities.reverse();
        other.capabilities.push(Capability { major: 9, minor: 0 });
        let digest = key().digest();
        assert_eq!(digest, other.digest());
        assert_eq!(KeyDigest::parse(&digest.to_string()), Some(digest));
        assert_eq!(KeyDigest::parse("00"), None);
        assert_eq!(digest.short().len(), 12);
    }
}
