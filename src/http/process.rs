//! What the kernel knows of this process: memory, processor time, threads, open files. Linux's `/proc` only.

use std::fs;

/// Ticks a second in `/proc/self/stat`: the kernel's `USER_HZ`, 100 on every architecture we run on.
const TICKS: f64 = 100.0;

/// A reading; a field the kernel did not give is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// Resident memory in bytes.
    pub(super) resident: Option<u64>,
    /// User and system time in seconds.
    pub(super) cpu: Option<f64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open file descriptors.
    pub(super) files: Option<u64>,
}

impl Usage {
    /// Reads the numbers now.
    pub(super) fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self {
            resident: field(&status, "VmRSS:").map(|kib| kib * 1024),
            cpu: fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_seconds),
            threads: field(&status, "Threads:"),
            files: fs::read_dir("/proc/self/fd").ok().and_then(|dir| u64::try_from(dir.count()).ok()),
        }
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// User plus system time from `/proc/<pid>/stat`. The second field is the program's name in parentheses and may
/// hold anything, so fields are counted from the last `)`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some((user + system) as f64 / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_program_name_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("42 (cut short"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let usage = Usage::now();
        assert!(usage.resident.is_some_and(|bytes| bytes > 1 << 20), "{usage:?}");
        assert!(usage.threads.is_some_and(|n| n >= 1) && usage.files.is_some_and(|n| n >= 3), "{usage:?}");
        assert!(usage.cpu.is_some(), "{usage:?}");
    }
}
