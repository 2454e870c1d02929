//! Spans of time as people configure them.

use std::time::Duration;

/// So many seconds; what is no span of time counts as none.
pub fn seconds(value: f32) -> Duration {
    Duration::try_from_secs_f32(value).unwrap_or_default()
}
