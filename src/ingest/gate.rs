//! What of a live stream is shown. Who joins in the middle gets pictures that build on others which came before: decoders
//! give out grey ones for them, and say of some that they are torn.
//!
//! All that comes goes into the decoder: the first of it may hold the parameter sets, which some cameras send but once.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::types::lock;

/// How long pictures are held back while no whole one comes. Streams that refresh line by line never send a keyframe, and
/// their pictures may be called torn for ever. Well below what a camera has for its first picture, of which connecting takes its
/// part.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which pictures of one connection may be shown.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    beginning: Beginning,
    /// When the newest whole picture came; before that, when the first data did.
    whole: Option<Instant>,
}

/// The first picture that stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Beginning {
    /// Nothing has reached a decoder; nothing ever does where the source is not compressed.
    #[default]
    Unknown,
    /// It was before we came, or is still to come.
    Missed,
    /// It is in the decoder, and has this presentation time.
    Coming(Option<u64>),
    /// It was shown, or is no longer waited for.
    Past,
}

impl Gate {
    /// Data of the picture at `pts` reaches a decoder at `now`. `alone`: the picture needs no other.
    pub(super) fn encoded(&self, alone: bool, pts: Option<u64>, now: Instant) {
        let mut state = lock(&self.0);
        state.whole.get_or_insert(now);
        state.beginning = match (state.beginning, alone) {
            (Beginning::Unknown, false) => Beginning::Missed,
            // What comes after it may still be shown before it, and build on what we missed.
            (Beginning::Unknown | Beginning::Missed, true) => Beginning::Coming(pts),
            (unchanged, _) => unchanged,
        };
    }

    /// Whether the picture at `pts` that came out at `now` is shown. `torn`: its decoder says that parts are missing.
    pub(super) fn shows(&self, torn: bool, pts: Option<u64>, now: Instant) -> bool {
        let mut state = lock(&self.0);
        let since = *state.whole.get_or_insert(now);
        let early = match state.beginning {
            Beginning::Missed => true,
            Beginning::Coming(first) => first.zip(pts).is_some_and(|(first, pts)| pts < first),
            Beginning::Unknown | Beginning::Past => false,
        };
        if (early || torn) && now.saturating_duration_since(since) <= PATIENCE {
            return false;
        }
        state.beginning = Beginning::Past;
        if !torn {
            state.whole = Some(now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays `(seconds, alone, torn)` through a gate, each picture coming out as it goes in. Returns which are shown.
    fn shown(pictures: &[(u64, bool, bool)]) -> Vec<bool> {
        let (gate, start) = (Gate::default(), Instant::now());
        let show = |(seconds, alone, torn): &(u64, bool, bool)| {
            let now = start + Duration::from_secs(*seconds);
            gate.encoded(*alone, Some(*seconds), now);
            gate.shows(*torn, Some(*seconds), now)
        };
        pictures.iter().map(show).collect()
    }

    #[test]
    fn pictures_are_shown_from_the_first_that_stands_alone() {
        let joined = [(0, false, true), (1, false, false), (2, true, false), (3, false, false)];
        assert_eq!(shown(&joined), [false, false, true, true]);
        let from_the_start = [(0, true, false), (1, false, false), (2, false, true), (3, false, false)];
        assert_eq!(shown(&from_the_start), [true, true, false, true]);
    }

    #[test]
    fn a_stream_without_keyframes_is_shown_after_a_while() {
        assert_eq!(shown(&[(0, false, false), (5, false, false), (6, false, false)]), [false, false, true]);
        assert_eq!(shown(&[(0, false, true), (5, false, true), (6, false, true)]), [false, false, true]);
        // Torn for ever, but for one.
        let torn = [(0, true, true), (6, false, true), (7, false, false), (12, false, true), (13, false, true)];
        assert_eq!(shown(&torn), [false, true, true, false, true]);
    }

    #[test]
    fn what_was_in_the_decoder_before_the_keyframe_is_not_shown() {
        let (gate, now) = (Gate::default(), Instant::now());
        gate.encoded(false, Some(10), now);
        gate.encoded(true, Some(30), now);
        gate.encoded(false, Some(20), now);
        let shown = [10, 20, 30, 25].map(|pts| gate.shows(false, Some(pts), now));
        assert_eq!(shown, [false, false, true, true], "once it is open it stays so");
    }

    #[test]
    fn what_was_never_compressed_is_shown() {
        assert!(Gate::default().shows(false, None, Instant::now()));
    }
}
