//! What the scheduler hands to the model: frames with the questions asked of each.

use std::{sync::Arc, thread};

use super::{Frame, Query};

/// One frame and every query that is to be answered on it. The proposals are computed once for all of them.
#[derive(Debug, Clone)]
pub struct Job {
    /// The frame.
    pub frame: Arc<Frame>,
    /// Queries to answer, in the query set's order; may be empty (the frame is then published as it is).
    pub queries: Vec<Arc<Query>>,
}

/// Jobs for one pass of the model: at least one, at most the model's limit.
#[derive(Debug)]
pub struct Batch {
    /// The jobs, in the order their answers come back.
    pub jobs: Vec<Job>,
}

impl Batch {
    /// Has the canvases painted that are not yet, side by side. Most are, as a rule.
    pub fn paint(&self) {
        let mut blank = self.jobs.iter().map(|job| &job.frame.canvas).filter(|canvas| !canvas.is_painted());
        let Some(first) = blank.next() else { return };
        thread::scope(|scope| {
            for canvas in blank {
                scope.spawn(|| canvas.paint());
            }
            first.paint();
        });
    }
}
