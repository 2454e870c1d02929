//! The signals that are understood. A service ends with TERM and INT, and reloads with HUP; what runs in a terminal ends with it.

use std::{fs, future::poll_fn, io, task::Poll};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Stop,
    Reload,
}

/// The signals a service understands.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

/// Resolves once a command of a terminal is to end: by TERM, by INT, or because its terminal was closed. Listens from now on.
pub fn farewell() -> io::Result<impl Future<Output = ()> + Send> {
    // Whoever started it with `nohup` wants it to go on.
    let hangup = Some(SignalKind::hangup()).filter(|kind| !is_ignored(*kind));
    first_of([SignalKind::terminate(), SignalKind::interrupt()].into_iter().chain(hangup))
}

/// Resolves at the first signal of these kinds. Listens from now on.
pub fn first_of(kinds: impl Iterator<Item = SignalKind>) -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals = kinds.map(signal).collect::<io::Result<Vec<Signal>>>()?;
    Ok(poll_fn(move |context| {
        let came = signals.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
        if came { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// Whether this process was started with a signal ignored, as `nohup` does with the hang-up. To listen to it would end that.
pub fn is_ignored(kind: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    // The lowest bit is signal 1.
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> Wanted {
        tokio::select! {
            _ = self.terminate.recv() => Wanted::Stop,
            _ = self.interrupt.recv() => Wanted::Stop,
            _ = self.reload.recv() => Wanted::Reload,
        }
    }

    /// Waits for a signal to stop. A reload stays to be taken by [`Signals::next`].
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ignored_is_said_to_be() {
        // The standard library has a closed pipe ignored, and nobody ignores a child's end.
        assert!(is_ignored(SignalKind::pipe()));
        assert!(!is_ignored(SignalKind::child()));
    }
}
