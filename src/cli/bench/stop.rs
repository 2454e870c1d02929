//! What ends a benchmark before its time. By itself a signal would end this process and nothing else: the system under test
//! would run on, and the temporary folder would stay.

use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Exit, Failure, no_signals},
    daemon,
};

/// Whether a signal asked for the end.
pub(super) struct Stop(CancellationToken);

impl Stop {
    /// Listens from now on. To be called within the runtime.
    pub(super) fn listen() -> Result<Self, Failure> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let came = daemon::first_of(kinds.into_iter().filter(|kind| !daemon::is_ignored(*kind)))
            .map_err(|e| no_signals(&e))?;
        let stop = CancellationToken::new();
        let asked = stop.clone();
        tokio::spawn(async move {
            came.await;
            asked.cancel();
        });
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

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;

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
