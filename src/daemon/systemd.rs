//! What systemd hears: ready, reloading, stopping, and a watchdog that means progress.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::types::Pulse;

/// Work that has not ended for this long is stuck: no write to a broker takes so long, nor one pass of a large model on a
/// small machine (Grounding DINO takes 38 s on two cores).
pub(super) const STUCK: Duration = Duration::from_mins(2);

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd");
    }
}

/// Everything is up; cameras and the broker may still be connecting, that is what supervision is for.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// A reload has begun; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The daemon is saying goodbye.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Stages whose work in hand has not ended for longer than `limit`.
fn stuck(pulses: &[Pulse], limit: Duration) -> Vec<&'static str> {
    pulses.iter().filter(|p| p.busy_for().is_some_and(|t| t > limit)).map(Pulse::stage).collect()
}

/// What a tick of the watchdog is for.
#[derive(Debug, PartialEq, Eq)]
enum Tick {
    /// All stages get on: systemd is told.
    Feed,
    /// These are stuck, since the tick before: the log is told, and systemd nothing.
    Stuck(Vec<&'static str>),
    /// Some still are.
    Silence,
}

fn tick(pulses: &[Pulse], limit: Duration, was_stuck: bool) -> Tick {
    match stuck(pulses, limit) {
        none if none.is_empty() => Tick::Feed,
        _ if was_stuck => Tick::Silence,
        stages => Tick::Stuck(stages),
    }
}

/// Feeds systemd's watchdog as long as no stage is stuck. A camera or a broker that is away is not a hang; a model
/// that never returns is, and so is a runtime too blocked to run this very task.
pub(super) async fn watchdog(pulses: Vec<Pulse>, shutdown: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    info!(seconds = limit.as_secs(), "watchdog is on");
    let mut ticks = tokio::time::interval(limit / 3);
    let mut was_stuck = false;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let tick = tick(&pulses, STUCK, was_stuck);
        was_stuck = tick != Tick::Feed;
        match tick {
            Tick::Feed => tell(&[NotifyState::Watchdog]),
            Tick::Stuck(stages) => {
                error!(stages = stages.join(", "), "stuck: the watchdog is not fed; systemd will restart the daemon");
            }
            Tick::Silence => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stage_whose_work_does_not_end_is_stuck() {
        let pulses = ["ground", "publish", "schedule"].map(Pulse::new);
        let (ground, publish) = (pulses[0].clone(), pulses[1].clone());
        let _hanging = ground.busy();
        drop(publish.busy());
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(stuck(&pulses, Duration::from_millis(10)), ["ground"]);
        assert!(stuck(&pulses, Duration::from_mins(1)).is_empty());
    }

    #[test]
    fn the_watchdog_is_not_fed_while_a_stage_is_stuck_and_the_log_is_told_once() {
        let pulses = ["ground", "publish"].map(Pulse::new);
        let (ground, limit) = (pulses[0].clone(), Duration::from_millis(10));
        assert_eq!(tick(&pulses, limit, false), Tick::Feed);
        let hanging = ground.busy();
        assert_eq!(tick(&pulses, Duration::from_mins(1), false), Tick::Feed, "a stage may be at work");
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(tick(&pulses, limit, false), Tick::Stuck(vec!["ground"]));
        assert_eq!(tick(&pulses, limit, true), Tick::Silence);
        drop(hanging);
        assert_eq!(tick(&pulses, limit, true), Tick::Feed, "it got on before systemd lost patience");
    }
}
