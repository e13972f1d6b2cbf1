//! A crash-safe, size-bounded store of blobs by key, in memory and on disk, shared by processes.
//!
//! - [`MemoryCache`]: values of one process, bounded by number and bytes;
//! - [`DiskCache`]: bytes in a directory that any number of processes use at the same time, bounded by bytes; with a
//!   secret, only what was stored with it is believed;
//! - [`Folder`]: a directory held open, with files that appear whole, locks by name, and no way out through links.
//!
//! Invariant: a cache never fails its user. What cannot be read is a miss, what cannot be written is dropped, and both
//! leave a diagnostic to be printed as a warning.

mod blob;
mod disk;
mod folder;
mod memory;

pub use blob::{FORMAT_VERSION, Refusal};
pub use disk::{DiskCache, DiskCounters, DiskOptions, Lookup};
pub use folder::{Entry, Folder, FolderLock, Naming};
pub use memory::{MemoryCache, MemoryCounters};
