//! What the tests share: engines whose content can be told from their key, and this test program as a child process.

#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use djinn_engines::{BuildContext, BuildError, CacheOptions, Capability, EngineCache, EngineKey, SizeRange};

/// What children do, by this variable: `role folder seed`. Without it, the test `child` does nothing.
pub(crate) const CHILD: &str = "DJINN_ENGINES_TEST_CHILD";

pub(crate) fn key(number: u8) -> EngineKey {
    EngineKey {
        region: [number; 32],
        weights: None,
        library: "fake".into(),
        version: "1.0".into(),
        platform: EngineKey::this_platform(),
        capabilities: vec![Capability { major: 9, minor: 0 }],
        precision: "fp16".into(),
        profiles: vec![BTreeMap::from([("s".into(), SizeRange { min: 1, opt: 2, max: 3 })])],
        options: BTreeMap::new(),
    }
}

/// The engine of a key.
pub(crate) fn content(number: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 16) as u8 ^ number).collect()
}

pub(crate) type Built = Result<Vec<u8>, BuildError>;

/// A builder that is not to be called.
pub(crate) fn unwanted(_: &BuildContext) -> Built {
    panic!("this engine is built already")
}

pub(crate) fn open(dir: &Path) -> EngineCache {
    EngineCache::open(dir, CacheOptions::default()).expect("opens")
}

pub(crate) fn tempdir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("engines");
    (dir, path)
}

/// Adds a line to a file in one write.
pub(crate) fn log(path: &Path, line: &str) {
    let mut file = OpenOptions::new().append(true).create(true).open(path).expect("opens");
    file.write_all(format!("{line}\n").as_bytes()).expect("writes");
}

/// The lines of a log in order.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let mut lines: Vec<String> =
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

pub(crate) fn spawn(role: &str, dir: &Path, seed: u64) -> Child {
    let program = std::env::current_exe().expect("this program");
    let mut command = Command::new(program);
    command.args(["--exact", "child", "--test-threads=1"]);
    command.env(CHILD, format!("{role} {} {seed}", dir.display()));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
}

pub(crate) fn finish(children: Vec<Child>) {
    for mut child in children {
        assert!(child.wait().expect("ends").success());
    }
}

/// The order of this process, if it is a child: role, folder and seed.
pub(crate) fn order() -> Option<(String, PathBuf, u64)> {
    let order = std::env::var(CHILD).ok()?;
    let mut words = order.split(' ').map(str::to_owned);
    let (role, dir) = (words.next()?, words.next()?.into());
    Some((role, dir, words.next()?.parse().expect("a number")))
}

/// A generator of numbers that are the same in every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// All files below a folder.
pub(crate) fn files(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            out.extend(files(&path, ending));
        } else if path.to_string_lossy().ends_with(ending) {
            out.push(path);
        }
    }
    out.sort();
    out
}
