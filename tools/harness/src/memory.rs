//! Peak memory of this process, from Linux' `/proc`; unknown elsewhere.

/// Forgets the peak so far; does nothing where the system does not let us.
pub(crate) fn reset_peak() {
    // "5" resets VmHWM: https://docs.kernel.org/filesystems/proc.html
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The largest resident size since the start or the last reset, in MiB.
pub(crate) fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
