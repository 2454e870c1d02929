//! When to stop a model that no longer says anything: caps and repetition.
//!
//! Coordinate-writing models fall into endless repetition on crowded pictures, above some 40 to 50 instances (Qwen3-VL
//! `cookbooks/2d_grounding.ipynb`, "Known limitations"): the same objects over and over, or ever new ones in even
//! steps across the picture. The guard watches token ids and boxes and says when to stop; what was read until then
//! stays. It is pure: no clock, no model.

use super::RawBox;

/// Longest loop looked for, in tokens: a JSON object takes about thirty.
const MAX_PERIOD: usize = 96;
/// How often a loop must have come round.
const ROUNDS: usize = 4;
/// Shortest text that counts as a loop, in tokens: `0000` is a number.
const MIN_LOOP: usize = 24;
/// Boxes in even steps that no row of real things reaches.
const MAX_EVEN_STEPS: u32 = 20;
/// What two steps or sizes may differ by and still be even, in fractions of the image: one bin of a thousand.
const EVEN: f32 = 1.5e-3;

/// How much one answer may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Most tokens.
    pub tokens: usize,
    /// Most boxes.
    pub boxes: usize,
}

/// Why an answer was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The token cap is reached.
    Tokens,
    /// The box cap is reached.
    Boxes,
    /// The same tokens came round again and again.
    Loop,
    /// Boxes of one size and name march across the picture in even steps.
    March,
}

/// Watches one answer.
#[derive(Debug, Clone)]
pub struct Guard {
    caps: Caps,
    tokens: usize,
    boxes: usize,
    /// The last `MAX_PERIOD` tokens, as a ring.
    recent: Vec<u32>,
    /// For each period, how many tokens in a row equalled the one a period before.
    runs: Vec<usize>,
    last: Option<RawBox>,
    step: [f32; 4],
    even: u32,
}

impl Guard {
    /// A guard with these caps.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            tokens: 0,
            boxes: 0,
            recent: Vec::with_capacity(MAX_PERIOD),
            runs: vec![0; MAX_PERIOD],
            last: None,
            step: [0.0; 4],
            even: 0,
        }
    }

    /// Takes the next token; says whether to stop after it.
    pub fn token(&mut self, id: u32) -> Option<Stop> {
        let mut looped = false;
        for period in 1..=self.recent.len() {
            let before = self.recent[(self.tokens - period) % MAX_PERIOD];
            let run = &mut self.runs[period - 1];
            *run = if before == id { *run + 1 } else { 0 };
            let whole = *run + period;
            looped |= whole >= period * ROUNDS && whole >= MIN_LOOP;
        }
        if self.recent.len() < MAX_PERIOD {
            self.recent.push(id);
        } else {
            self.recent[self.tokens % MAX_PERIOD] = id;
        }
        self.tokens += 1;
        if looped { Some(Stop::Loop) } else { (self.tokens >= self.caps.tokens).then_some(Stop::Tokens) }
    }

    /// Takes the next box; says whether to stop after it.
    pub fn found(&mut self, raw: &RawBox) -> Option<Stop> {
        self.boxes += 1;
        if let Some(last) = &self.last {
            let step: [f32; 4] = std::array::from_fn(|i| raw.fractions[i] - last.fractions[i]);
            // One step for both corners is one size; the same step as before is an even march.
            let evenly = last.label == raw.label
                && [(0, 2), (1, 3)].iter().all(|&(a, b)| (step[a] - step[b]).abs() < EVEN)
                && step.iter().zip(self.step).all(|(a, b)| (a - b).abs() < EVEN);
            self.even = if evenly { self.even + 1 } else { 0 };
            self.step = step;
        }
        self.last = Some(raw.clone());
        if self.even >= MAX_EVEN_STEPS {
            Some(Stop::March)
        } else {
            (self.boxes >= self.caps.boxes).then_some(Stop::Boxes)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIDE: Caps = Caps { tokens: 100_000, boxes: 10_000 };

    fn tokens(ids: impl IntoIterator<Item = u32>) -> Option<(usize, Stop)> {
        let mut guard = Guard::new(WIDE);
        ids.into_iter().enumerate().find_map(|(i, id)| guard.token(id).map(|stop| (i + 1, stop)))
    }

    fn at(x: f32, y: f32) -> RawBox {
        RawBox { label: "person".into(), fractions: [x, y, x + 0.02, y + 0.05], score: None }
    }

    #[test]
    fn an_object_written_four_times_over_is_a_loop() {
        let text = (1000..1050).chain((0..30).cycle().take(300));
        assert_eq!(tokens(text), Some((50 + 4 * 30, Stop::Loop)));
    }

    #[test]
    fn short_runs_are_numbers_not_loops() {
        assert_eq!(tokens([7; 23]), None);
        assert_eq!(tokens([7; 24]), Some((24, Stop::Loop)));
    }

    #[test]
    fn caps_hold() {
        let mut guard = Guard::new(Caps { tokens: 3, boxes: 2 });
        assert_eq!([1, 2, 3].map(|id| guard.token(id)), [None, None, Some(Stop::Tokens)]);
        assert_eq!(guard.found(&at(0.1, 0.1)), None);
        assert_eq!(guard.found(&at(0.7, 0.3)), Some(Stop::Boxes));
    }

    #[test]
    fn a_march_is_stopped_and_a_crowd_is_not() {
        let mut guard = Guard::new(WIDE);
        let march = (0..40u8).find_map(|i| guard.found(&at(f32::from(i) * 0.02, 0.5)).map(|stop| (i, stop)));
        assert_eq!(march, Some((21, Stop::March)));
        let mut guard = Guard::new(WIDE);
        for i in 0..200u8 {
            let (x, y) = (f32::from(i % 10) * 0.09, f32::from(i / 10) * 0.045);
            assert_eq!(guard.found(&at(x, y)), None, "a grid of ten a row turns before it marches");
        }
    }

    proptest! {
        #[test]
        fn a_loop_of_any_period_is_seen_after_four_rounds(
            period in 6usize..=MAX_PERIOD, head in proptest::collection::vec(500u32..600, 0..150), seed in any::<u32>(),
        ) {
            // All tokens of a round differ, so nothing shorter loops.
            let round = (0..period).map(|i| (u32::try_from(i).unwrap()).wrapping_add(seed % 1000) + 10_000);
            let round: Vec<_> = round.collect();
            let text = head.iter().copied().chain(round.iter().copied().cycle().take(period * 6));
            let mut guard = Guard::new(WIDE);
            let stop = text.enumerate().find_map(|(i, id)| guard.token(id).map(|s| (i + 1, s)));
            prop_assert_eq!(stop, Some((head.len() + period * ROUNDS, Stop::Loop)));
        }

        #[test]
        fn text_that_never_repeats_is_never_stopped(n in 1u32..3000) {
            prop_assert_eq!(tokens(0..n), None);
        }
    }
}
