//! Saying again and again what stays true, but not all the time.

use std::time::{Duration, Instant};

/// How often it is said.
const EVERY: Duration = Duration::from_mins(1);

/// When something was last said.
#[derive(Debug, Default)]
pub struct Reminder(Option<Instant>);

impl Reminder {
    /// Whether it is time to say it, at first or again; then it counts as said.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let due = self.0.is_none_or(|at| now.saturating_duration_since(at) >= EVERY);
        if due {
            self.0 = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_at_once_and_once_a_minute() {
        let (mut reminder, start) = (Reminder::default(), Instant::now());
        let said: Vec<u64> = (0..200).filter(|s| reminder.is_due(start + Duration::from_secs(*s))).collect();
        assert_eq!(said, [0, 60, 120, 180]);
    }
}
