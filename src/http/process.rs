//! What the kernel knows of a process: memory, processor time, threads, open files. Linux's `/proc` only.

use std::fs;

/// Ticks a second in `/proc/self/stat`: the kernel's `USER_HZ`, 100 on every architecture we run on.
const TICKS: f64 = 100.0;

/// A reading; a field the kernel did not give is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident: Option<u64>,
    /// User and system time in seconds.
    pub cpu: Option<f64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub files: Option<u64>,
}

impl Usage {
    /// This process, now.
    pub fn now() -> Self {
        Self::of_folder("/proc/self")
    }

    /// The process `pid`, now; of one that is gone nothing is known.
    pub fn of(pid: u32) -> Self {
        Self::of_folder(&format!("/proc/{pid}"))
    }

    /// Memory and processor time of `pid` and everything it started, together.
    pub fn of_tree(pid: u32) -> Self {
        let family = descendants(pid).into_iter().map(Self::of);
        family.fold(Self::of(pid), |sum, one| Self {
            resident: add(sum.resident, one.resident),
            cpu: sum.cpu.map(|cpu| cpu + one.cpu.unwrap_or_default()),
            threads: add(sum.threads, one.threads),
            files: add(sum.files, one.files),
        })
    }

    fn of_folder(folder: &str) -> Self {
        let status = fs::read_to_string(format!("{folder}/status")).unwrap_or_default();
        Self {
            resident: field(&status, "VmRSS:").map(|kib| kib * 1024),
            cpu: fs::read_to_string(format!("{folder}/stat")).ok().as_deref().and_then(cpu_seconds),
            threads: field(&status, "Threads:"),
            files: fs::read_dir(format!("{folder}/fd")).ok().and_then(|dir| u64::try_from(dir.count()).ok()),
        }
    }
}

fn add(sum: Option<u64>, one: Option<u64>) -> Option<u64> {
    sum.map(|sum| sum + one.unwrap_or_default())
}

/// Children, their children, and so on.
fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(pid) = open.pop() {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = lists
            .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
            .collect();
        found.extend(&children);
        open.extend(children);
    }
    found
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
