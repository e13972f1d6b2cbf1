//! How engines are built, and what they therefore depend on.

use super::stored;
use djinn_engines::{BuildError, Capability, EngineKey, KeyDigest};
use djinn_tensorrt::{BuildOptions, Library, Precision, Region};
use std::cell::OnceCell;
use std::collections::BTreeMap;

/// How the engines of one device are built.
#[derive(Clone)]
pub(super) struct How {
    /// Name and version of the library that builds.
    pub(super) library: String,
    pub(super) options: BuildOptions,
    pub(super) precision: Precision,
}

impl How {
    /// How engines are built for a compute capability.
    pub(super) fn new(library: &str, capability: u32, precision: &Precision) -> How {
        let named = Some(capability).filter(|c| djinn_tensorrt::builds_for(*c));
        let options =
            BuildOptions { compute_capabilities: named.into_iter().collect(), ..BuildOptions::default() };
        How { library: library.to_owned(), options, precision: precision.clone() }
    }

    /// Builds an engine as it stands in the cache.
    pub(super) fn build(&self, library: &Library, region: &Region) -> Result<Vec<u8>, BuildError> {
        let built = djinn_tensorrt::build(library, region, &self.options)?;
        stored::pack(&built).map_err(BuildError::from)
    }

    /// What an engine depends on.
    pub(super) fn key(&self, region: &Region) -> KeyDigest {
        let mut hash = [0; 32];
        hash[..16].copy_from_slice(&region.key().0);
        let capabilities = self.options.compute_capabilities.iter();
        let (name, version) = self.library.split_once(' ').unwrap_or((&self.library, ""));
        EngineKey {
            region: hash,
            weights: None,
            library: name.to_owned(),
            version: version.to_owned(),
            platform: EngineKey::this_platform(),
            capabilities: capabilities.map(|c| Capability { major: c / 10, minor: c % 10 }).collect(),
            precision: self.precision.name(),
            // The sizes are part of the region.
            profiles: Vec::new(),
            options: BTreeMap::from([
                ("builder".to_owned(), self.options.name()),
                // Another build may make other layers of the same region.
                ("djinn".to_owned(), env!("DJINN_BUILD").to_owned()),
            ]),
        }
        .digest()
    }
}

/// TensorRT, loaded when it is needed.
#[derive(Default)]
pub(super) struct LazyLibrary(OnceCell<Library>);

impl LazyLibrary {
    pub(super) fn get(&self) -> djinn_diag::Result<&Library> {
        match self.0.get() {
            Some(library) => Ok(library),
            None => Library::load().map(|library| self.0.get_or_init(|| library)),
        }
    }
}
