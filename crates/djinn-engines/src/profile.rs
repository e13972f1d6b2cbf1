//! The records of all regions, kept in a folder and added up over processes.
//!
//! What happens is added up in memory and now and then added to the file, under a lock, so that no process's counts are
//! lost to another's. The file is replaced as a whole; a process that is killed loses what it had not written yet. The
//! file is authenticated like engines; one that is not believed counts as empty.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use djinn_cache::{DiskCache, DiskOptions, Folder, Lookup};
use djinn_diag::Diagnostic;

use crate::key::KeyDigest;
use crate::record::{Failure, Predicted, Record, Timing, nanoseconds};

/// Regions remembered, at most; those longest untouched go first.
const MAX_RECORDS: usize = 4096;
/// Bytes of the file, at most; more than [`MAX_RECORDS`] take.
const MAX_BYTES: u64 = 64 << 20;
/// Counts are written at least this often, if there are any.
const FLUSH_AFTER: Duration = Duration::from_secs(10);
/// What the file is: lines of text, see [`Table::parse`].
const NAMESPACE: &str = "engine-profile/1";
const LOCK: &str = "profile.lock";

/// The records of all regions.
pub(crate) struct Profile {
    file: Option<ProfileFile>,
    /// For how many seconds refusals are remembered.
    remember: u64,
    state: Mutex<State>,
    /// Held by the one thread that writes the file.
    flushing: Mutex<()>,
}

struct ProfileFile {
    disk: DiskCache,
    folder: Folder,
}

struct State {
    /// What the file held when it was last read.
    stored: Table,
    /// What is being added to it.
    leaving: Table,
    /// What happened since.
    pending: Table,
    written: Instant,
}

impl Profile {
    /// The profile in a folder; without one, it lasts as long as this process.
    pub(crate) fn open(folder: Option<(Folder, [u8; 32])>, remember: Duration) -> Profile {
        let file = folder.map(|(folder, secret)| {
            let options = DiskOptions { max_bytes: MAX_BYTES, secret: Some(secret), sync: false };
            ProfileFile { disk: DiskCache::in_folder(&folder, options), folder }
        });
        let state = State {
            stored: file.as_ref().and_then(ProfileFile::read).unwrap_or_default(),
            leaving: Table::default(),
            pending: Table::default(),
            written: Instant::now(),
        };
        let state = Mutex::new(state);
        Profile { file, remember: remember.as_secs(), state, flushing: Mutex::default() }
    }

    /// What is known of a region.
    pub(crate) fn record(&self, key: KeyDigest) -> Record {
        let state = self.lock();
        let mut record = Record::default();
        for table in [&state.stored, &state.leaving, &state.pending] {
            if let Some((_, known)) = table.0.get(&key) {
                record.merge(known.clone());
            }
        }
        record.failure = record.failure.filter(|f| f.counts(now(), self.remember));
        record
    }

    /// The builds of all engines.
    pub(crate) fn builds(&self) -> Timing {
        let state = self.lock();
        let mut all = Timing::default();
        for table in [&state.stored, &state.leaving, &state.pending] {
            table.0.values().for_each(|(_, record)| all.add(record.build));
        }
        all
    }

    /// Adds something that happened, and writes the file if that was long ago.
    pub(crate) fn add(&self, key: KeyDigest, what: impl FnOnce(&mut Record)) {
        let mut state = self.lock();
        what(&mut state.pending.0.entry(key).or_default().1);
        if state.pending.0.len() > 2 * MAX_RECORDS {
            state.pending.trim();
        }
        let due = self.file.is_some() && state.written.elapsed() >= FLUSH_AFTER;
        drop(state);
        if due {
            self.flush();
        }
    }

    /// Remembers that a builder refused.
    pub(crate) fn refused(&self, key: KeyDigest, diagnostic: &Diagnostic) {
        let failure = Failure::new(diagnostic, now());
        self.add(key, |record| record.failure = Some(failure));
    }

    /// Reads what other processes have written.
    pub(crate) fn refresh(&self) {
        let Some(file) = &self.file else { return };
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stored) = file.read() {
            self.lock().stored = stored;
        }
    }

    /// Adds what happened to the file. What cannot be written stays in memory.
    pub(crate) fn flush(&self) {
        let Some(file) = &self.file else { return };
        let _one = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        let leaving = {
            let mut state = self.lock();
            state.written = Instant::now();
            state.leaving = std::mem::take(&mut state.pending);
            state.leaving.clone()
        };
        if leaving.0.is_empty() {
            return;
        }
        let added = file.add(leaving);
        let mut state = self.lock();
        let left = std::mem::take(&mut state.leaving);
        match added {
            Some(stored) => state.stored = stored,
            None => {
                let later = std::mem::replace(&mut state.pending, left);
                state.pending.merge(later);
                state.pending.trim();
            }
        }
    }

    pub(crate) fn take_warnings(&self) -> Vec<Diagnostic> {
        self.file.as_ref().map(|file| file.disk.take_warnings()).unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProfileFile {
    /// What the file holds; `None` if that cannot be found out now.
    fn read(&self) -> Option<Table> {
        match self.disk.lookup(NAMESPACE, b"") {
            Lookup::Found(bytes) => Some(Table::parse(&String::from_utf8_lossy(&bytes))),
            Lookup::Missing | Lookup::Refused(_) => Some(Table::default()),
            Lookup::Unreadable => None,
        }
    }

    /// What the file holds with these added; `None` if it could not be written.
    fn add(&self, later: Table) -> Option<Table> {
        // Where files cannot be locked, counts of processes that write at the same moment may be lost.
        let _lock = self.folder.lock(LOCK);
        let mut table = self.read()?;
        table.merge(later);
        table.trim();
        self.disk.put(NAMESPACE, b"", table.text().as_bytes()).then_some(table)
    }
}

/// Records by region, each with the number of the write that last touched it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Table(BTreeMap<KeyDigest, (u64, Record)>);

impl Table {
    fn merge(&mut self, later: Table) {
        let number = self.0.values().map(|(used, _)| *used).max().unwrap_or(0).saturating_add(1);
        for (key, (_, record)) in later.0 {
            let (used, known) = self.0.entry(key).or_default();
            *used = number;
            known.merge(record);
        }
    }

    fn trim(&mut self) {
        let excess = self.0.len().saturating_sub(MAX_RECORDS);
        let mut oldest: Vec<(u64, KeyDigest)> = self.0.iter().map(|(key, (used, _))| (*used, *key)).collect();
        oldest.sort_unstable();
        for (_, key) in &oldest[..excess] {
            self.0.remove(key);
        }
    }

    /// One line for each record: its fields, separated by tabs.
    fn text(&self) -> String {
        self.0.iter().map(|(key, (used, record))| line(key, *used, record)).collect()
    }

    /// Lines of another form are left out.
    fn parse(text: &str) -> Table {
        Table(text.lines().filter_map(parse_line).collect())
    }
}

fn line(key: &KeyDigest, used: u64, record: &Record) -> String {
    let times = [record.fallback, record.engine, record.build].map(|t| [t.count, t.nanoseconds, t.fastest]);
    let mut fields = vec![key.to_string(), used.to_string(), record.waited.to_string()];
    fields.extend(times.iter().flatten().map(u64::to_string));
    match &record.predicted {
        Some(p) => fields.extend([p.build, p.fallback, p.engine].map(|t| nanoseconds(t).to_string())),
        None => fields.extend(["-", "-", "-"].map(str::to_owned)),
    }
    if let Some(f) = &record.failure {
        fields.push(f.at.to_string());
        fields.extend([&f.version, &f.code, &f.message, &f.help].map(|text| text.clone()));
    }
    fields.join("\t") + "\n"
}

fn parse_line(line: &str) -> Option<(KeyDigest, (u64, Record))> {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    let timing = |i| Some(Timing { count: number(i)?, nanoseconds: number(i + 1)?, fastest: number(i + 2)? });
    let time = |i| number(i).map(Duration::from_nanos);
    let predicted = || Some(Predicted { build: time(12)?, fallback: time(13)?, engine: time(14)? });
    let text = |i: usize| fields.get(i).map(|&field| field.to_owned());
    let failure = || {
        let (version, code) = (text(16)?, text(17)?);
        Some(Failure { at: number(15)?, version, code, message: text(18)?, help: text(19)? })
    };
    let record = Record {
        waited: number(2)?,
        fallback: timing(3)?,
        engine: timing(6)?,
        build: timing(9)?,
        predicted: predicted(),
        failure: failure(),
    };
    Some((KeyDigest::parse(fields.first()?)?, (number(1)?, record)))
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use djinn_diag::unsupported;

    const SECOND: Duration = Duration::from_secs(1);

    fn table(numbers: impl Iterator<Item = u8>) -> Table {
        let record = |i: u8| {
            let mut record = Record::default();
            record.ran_fallback(i.into(), SECOND);
            record.engine = Timing::new(2, SECOND);
            if i.is_multiple_of(2) {
                record.predicted = Some(Predicted { build: SECOND, fallback: SECOND, engine: SECOND });
            }
            if i.is_multiple_of(3) {
                let diagnostic = unsupported("trt.op", "a\tb\nc\u{85}").help("x".repeat(1000));
                record.failure = Some(Failure::new(&diagnostic, 7));
            }
            record
        };
        Table(numbers.map(|i| (KeyDigest([i; 32]), (u64::from(i), record(i)))).collect())
    }

    #[test]
    fn tables_read_back_and_odd_lines_are_left_out() {
        let table = table(0..50);
        let text = table.text();
        assert_eq!(Table::parse(&text), table);
        assert!(text.len() < 50 * 1000);
        assert_eq!(Table::parse(&text.replace("-\t-\t-", "")).0.len(), 50);
        for odd in ["", "\t\t\t", "x\ny", &text[..70], &"9".repeat(10_000), &text.replace('\t', " ")] {
            assert_eq!(Table::parse(odd), Table::default());
        }
    }

    #[test]
    fn the_longest_untouched_go_first() {
        let mut all = Table::default();
        for i in 0..=MAX_RECORDS as u64 {
            let mut key = KeyDigest([0; 32]);
            key.0[..8].copy_from_slice(&i.to_be_bytes());
            all.0.insert(key, (MAX_RECORDS as u64 - i, Record::default()));
        }
        let last = *all.0.keys().next_back().expect("there");
        all.trim();
        assert_eq!(all.0.len(), MAX_RECORDS);
        assert!(!all.0.contains_key(&last));
    }

    #[test]
    fn a_build_ends_the_wait_and_forgets_a_refusal() {
        let mut record = Record::default();
        record.ran_fallback(5, SECOND);
        record.failure = Some(Failure::new(&unsupported("a", "b"), 1));
        let mut later = Record::default();
        later.ran_fallback(3, SECOND);
        later.built(SECOND);
        later.ran_fallback(2, SECOND);
        record.merge(later);
        assert_eq!((record.waited, record.fallback.count, record.failure), (2, 10, None));
    }

    #[test]
    fn refusals_are_remembered_for_a_time() {
        let failure = Failure::new(&unsupported("a", "b"), 1000);
        assert!(failure.counts(1000, 10) && failure.counts(1009, 10) && failure.counts(995, 10));
        assert!(!failure.counts(1010, 10) && !failure.counts(1000, 0));
        assert!(!Failure { version: "0".into(), ..failure }.counts(1000, 10));
    }
}
