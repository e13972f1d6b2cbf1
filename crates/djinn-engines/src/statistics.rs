//! What a cache of engines has done in this process.

use djinn_cache::Refusal;

/// What a cache of engines has done in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Engines found on disk.
    pub hits: u64,
    /// Lookups that found none, for whatever reason.
    pub misses: u64,
    /// Engines built.
    pub builds: u64,
    /// Builds that failed.
    pub failures: u64,
    /// Builds spared because they failed before.
    pub remembered: u64,
    /// Askers that got the engine of another asker of this process.
    pub shared: u64,
    /// Files that were no plain file.
    pub rejected_kind: u64,
    /// Files larger than the whole cache.
    pub rejected_size: u64,
    /// Files cut short, or with the header of something else.
    pub rejected_form: u64,
    /// Files whose bytes are not those that were stored, or were stored with another secret.
    pub rejected_hash: u64,
    /// Engines that could not be kept.
    pub dropped: u64,
    /// Engines removed to make room.
    pub evictions: u64,
    /// Bytes of engines on disk at the last look.
    pub bytes: u64,
}

impl Statistics {
    /// Files that were refused, for whatever reason.
    pub fn rejected(&self) -> u64 {
        self.rejected_kind + self.rejected_size + self.rejected_form + self.rejected_hash
    }

    pub(crate) fn count(&mut self, why: Refusal) {
        *match why {
            Refusal::NotAFile => &mut self.rejected_kind,
            Refusal::TooLarge => &mut self.rejected_size,
            Refusal::Form => &mut self.rejected_form,
            Refusal::Hash => &mut self.rejected_hash,
        } += 1;
    }
}

/// The reason in words.
pub(crate) fn words(why: Refusal) -> &'static str {
    match why {
        Refusal::NotAFile => "it is a directory, a link, a pipe or a device",
        Refusal::TooLarge => "it is larger than the whole cache",
        Refusal::Form => "it is cut short or is something else's",
        Refusal::Hash => "its bytes are not those that were stored with this folder's secret",
    }
}
