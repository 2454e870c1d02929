//! What ends a benchmark before its time. By itself a signal would end this process and nothing else: the system under test
//! would run on, and the temporary folder would stay.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::{Exit, Failure};

/// Whether a signal asked for the end.
pub(super) struct Stop(CancellationToken);

impl Stop {
    /// Listens from now on. To be called within the runtime.
    pub(super) fn listen() -> Result<Self, Failure> {
        let cannot = |e: io::Error| Failure::new(Exit::Internal, format!("cannot listen for signals: {e}"));
        let stop = CancellationToken::new();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        for kind in kinds.into_iter().filter(|kind| !ignored(*kind)) {
            let (mut signal, stop) = (signal(kind).map_err(cannot)?, stop.clone());
            tokio::spawn(async move {
                if signal.recv().await.is_some() {
                    stop.cancel();
                }
            });
        }
        Ok(Self(stop))
    }

    /// An error once a signal has come: for work that cannot be dropped half-way.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.0.is_cancelled() { Err(stopped()) } else { Ok(()) }
    }

    /// Does `work`; drops it, and with it the processes that it holds, if a signal comes first.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = self.0.cancelled() => Err(stopped()),
            done = work => done,
        }
    }
}

fn stopped() -> Failure {
    Failure::new(Exit::Unavailable, "ended by a signal before everything was measured")
}

/// Whether this process was started with a signal ignored, as `nohup` does with the hang-up. Then it stays so.
fn ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;

    #[test]
    fn only_what_is_ignored_is_said_to_be() {
        // The standard library has a closed pipe ignored, and nobody ignores a child's end.
        assert!(ignored(SignalKind::pipe()));
        assert!(!ignored(SignalKind::child()));
    }

    #[tokio::test]
    async fn work_is_done_unless_a_signal_has_come_and_dropped_then() {
        let stop = Stop(CancellationToken::new());
        assert_eq!(stop.unless(async { Ok(7) }).await.unwrap(), 7);
        stop.check().unwrap();
        stop.0.cancel();
        let held = Arc::new(());
        let work = {
            let held = Arc::clone(&held);
            async move {
                pending::<()>().await;
                drop(held);
                Ok(())
            }
        };
        assert_eq!(stop.unless(work).await.unwrap_err().exit, Exit::Unavailable);
        assert_eq!((Arc::strong_count(&held), stop.check().is_err()), (1, true));
    }
}
