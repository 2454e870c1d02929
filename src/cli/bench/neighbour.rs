//! A camera beside the measured one that does what cameras do on bad days: the measured one should not notice.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::{Stage, cameras::Camera};

/// How much faster than its clip a flooding camera plays.
const FLOOD: u32 = 4;
/// How long a reconnecting camera lives.
const LIFE: Duration = Duration::from_secs(2);

/// What the camera beside does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Habit {
    /// Sends its pictures like any other.
    Steady,
    /// Sends four times as many.
    Floods,
    /// Keeps its connection and sends nothing any more.
    Stalls,
    /// Ends every two seconds and comes back at the same address.
    Reconnects,
}

impl Habit {
    pub(super) const ALL: [Self; 4] = [Self::Steady, Self::Floods, Self::Stalls, Self::Reconnects];

    /// As the table has it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Steady => "is steady",
            Self::Floods => "floods",
            Self::Stalls => "stalls",
            Self::Reconnects => "reconnects",
        }
    }
}

/// The camera beside, and what it is up to.
pub(super) struct Neighbour {
    habit: Habit,
    camera: Option<Camera>,
    since: Instant,
}

impl Neighbour {
    pub(super) async fn start(habit: Habit, stage: &Stage<'_>) -> Result<Self, String> {
        let speed = if habit == Habit::Floods { FLOOD } else { 1 };
        let camera = Camera::start_at(stage.film, stage.clip, 0, speed).await?;
        Ok(Self { habit, camera: Some(camera), since: Instant::now() })
    }

    pub(super) fn url(&self) -> Option<&str> {
        self.camera.as_ref().map(|camera| camera.url.as_str())
    }

    /// Called over and over once the measuring has begun.
    pub(super) async fn act(&mut self, stage: &Stage<'_>) -> Result<(), String> {
        match self.habit {
            Habit::Steady | Habit::Floods => Ok(()),
            Habit::Stalls => self.stop(),
            Habit::Reconnects if self.since.elapsed() < LIFE => Ok(()),
            Habit::Reconnects => {
                let port = self.camera.as_ref().and_then(Camera::port).unwrap_or_default();
                if let Some(camera) = self.camera.take() {
                    camera.end().await;
                }
                self.camera = Some(Camera::start_at(stage.film, stage.clip, port, 1).await?);
                self.since = Instant::now();
                Ok(())
            }
        }
    }

    /// Its process stays and does nothing any more.
    fn stop(&self) -> Result<(), String> {
        let pid = self.camera.as_ref().and_then(Camera::pid).and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or("the camera beside has ended")?;
        kill_process(pid, Signal::STOP).map_err(|e| format!("the camera beside cannot be stopped: {e}"))
    }
}
