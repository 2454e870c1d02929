//! Whether a picture is worth looking at: block differences of its brightness against the picture analysed last.
//!
//! The comparison is with the *analysed* picture, not with the one before, so that slow changes add up; and after a while
//! a picture is looked at however still it is.

use std::time::{Duration, Instant};

use crate::types::{Rgb, Size};

/// Side of a cell in pixels: noise averages out within one.
const CELL: usize = 4;
/// Side of a block in cells: the smallest thing whose movement counts fills a good part of one.
const BLOCK: usize = 4;

/// What to do with a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Analyse it: it differs, or it is the first.
    Changed,
    /// Analyse it, although it looks the same: the last time was too long ago.
    Again,
    /// What was found on the picture analysed last still holds.
    Same,
}

/// Remembers the brightness of the picture that was analysed last. One a camera.
#[derive(Debug, Default)]
pub struct Gate {
    size: Option<Size>,
    reference: Vec<u8>,
    current: Vec<u8>,
    looked_at: Option<Instant>,
}

impl Gate {
    /// Decides about a picture that came at `now`: a block counts as changed when it differs by more than `change`
    /// levels on average. Unless the answer is [`Look::Same`] it is the reference from now on.
    pub fn look(&mut self, picture: &Rgb, change: f32, again: Duration, now: Instant) -> Look {
        cells(picture, &mut self.current);
        let known = self.size == Some(picture.size);
        let look = match self.looked_at {
            Some(_) if known && change > 0.0 && !self.differs(picture.size, change) => {
                let rested = self.looked_at.is_some_and(|at| now.saturating_duration_since(at) < again);
                if rested { Look::Same } else { Look::Again }
            }
            _ => Look::Changed,
        };
        if look != Look::Same {
            std::mem::swap(&mut self.reference, &mut self.current);
            (self.size, self.looked_at) = (Some(picture.size), Some(now));
        }
        look
    }

    /// The picture asked about last is analysed after all: it is the reference from now on.
    pub fn adopt(&mut self, now: Instant) {
        if !self.current.is_empty() {
            std::mem::swap(&mut self.reference, &mut self.current);
            self.looked_at = Some(now);
        }
    }

    /// Forgets the reference: the next picture is looked at.
    pub fn reset(&mut self) {
        self.looked_at = None;
    }

    fn differs(&self, size: Size, change: f32) -> bool {
        // Smaller than a cell: there is nothing to compare.
        if self.current.is_empty() {
            return true;
        }
        let across = (size.width as usize / CELL).max(1);
        let blocks = self.reference.chunks(across * BLOCK).zip(self.current.chunks(across * BLOCK));
        let mut sums = vec![(0u32, 0u32); across.div_ceil(BLOCK)];
        for (before, after) in blocks {
            sums.fill((0, 0));
            for (before, after) in before.chunks(across).zip(after.chunks(across)) {
                let parts = before.chunks(BLOCK).zip(after.chunks(BLOCK)).zip(&mut sums);
                for ((before, after), (sum, count)) in parts {
                    *sum += before.iter().zip(after).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
                    *count += u32::try_from(before.len()).unwrap_or(0);
                }
            }
            if sums.iter().any(|(sum, count)| *sum as f32 > change * *count as f32) {
                return true;
            }
        }
        false
    }
}

/// Mean brightness of each cell, from every second row. What does not fill a cell at the right and at the bottom is left
/// out.
fn cells(picture: &Rgb, out: &mut Vec<u8>) {
    let (across, down) = (picture.size.width as usize / CELL, picture.size.height as usize / CELL);
    let pitch = picture.size.width as usize * 3;
    out.clear();
    out.reserve(across * down);
    let mut sums = vec![0u16; across];
    for band in picture.data.chunks_exact((pitch * CELL).max(1)).take(down) {
        sums.fill(0);
        for row in band.chunks_exact(pitch).step_by(2) {
            for (cell, sum) in row.as_chunks::<{ CELL * 3 }>().0.iter().zip(&mut sums) {
                for [r, g, b] in cell.as_chunks::<3>().0 {
                    *sum += u16::from(*r) + 2 * u16::from(*g) + u16::from(*b);
                }
            }
        }
        // Two rows of four pixels, four parts each.
        out.extend(sums.iter().map(|sum| u8::try_from(sum / 32).unwrap_or(u8::MAX)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIZE: Size = Size { width: 64, height: 48 };
    const AGAIN: Duration = Duration::from_secs(1);

    fn grey(level: u8) -> Vec<u8> {
        vec![level; SIZE.area() * 3]
    }

    /// `base` with a square of `level` at (x, y).
    fn with_square(mut base: Vec<u8>, (x, y): (usize, usize), side: usize, level: u8) -> Rgb {
        for row in y..y + side {
            let start = (row * SIZE.width as usize + x) * 3;
            base[start..start + side * 3].fill(level);
        }
        Rgb::new(SIZE, base).unwrap()
    }

    #[test]
    fn a_thing_that_appears_moves_or_goes_is_looked_at_and_stillness_is_not() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        let mut look = |picture: &Rgb, ms: u64| gate.look(picture, 5.0, AGAIN, start + Duration::from_millis(ms));
        let empty = Rgb::new(SIZE, grey(90)).unwrap();
        let there = with_square(grey(90), (10, 10), 10, 200);
        let moved = with_square(grey(90), (18, 10), 10, 200);
        assert_eq!(look(&empty, 0), Look::Changed);
        assert_eq!(look(&empty, 60), Look::Same);
        assert_eq!(look(&there, 120), Look::Changed);
        assert_eq!(look(&there, 180), Look::Same);
        assert_eq!(look(&moved, 240), Look::Changed);
        assert_eq!(look(&empty, 300), Look::Changed);
        assert_eq!(look(&empty, 1299), Look::Same);
        assert_eq!(look(&empty, 1300), Look::Again);
        assert_eq!(look(&empty, 1360), Look::Same);
    }

    #[test]
    fn slow_changes_add_up_and_another_size_is_another_picture() {
        let (mut gate, start) = (Gate::default(), Instant::now());
        let hour = Duration::from_hours(1);
        let looks: Vec<u8> = (90..130)
            .filter(|level| gate.look(&Rgb::new(SIZE, grey(*level)).unwrap(), 5.0, hour, start) == Look::Changed)
            .collect();
        assert_eq!(looks, [90, 96, 102, 108, 114, 120, 126]);
        let small = Rgb::new(Size::new(8, 8), vec![129; 192]).unwrap();
        assert_eq!(gate.look(&small, 5.0, hour, start), Look::Changed);
        gate.reset();
        assert_eq!(gate.look(&small, 5.0, hour, start), Look::Changed);
        assert_eq!(gate.look(&small, 0.0, hour, start), Look::Changed);
    }

    proptest! {
        #[test]
        fn no_picture_rests_longer_than_it_may_and_no_size_makes_it_panic(
            steps in proptest::collection::vec((0u64..700, any::<u8>(), 1u32..40, 1u32..40, any::<bool>()), 1..60),
        ) {
            let (mut gate, start) = (Gate::default(), Instant::now());
            let (mut now, mut last) = (start, None);
            for (ms, level, w, h, same_size) in steps {
                now += Duration::from_millis(ms);
                let size = if same_size { SIZE } else { Size::new(w, h) };
                let picture = Rgb::new(size, vec![level; size.area() * 3]).unwrap();
                match gate.look(&picture, 5.0, AGAIN, now) {
                    Look::Same => {
                        let (at, seen, before): (Instant, u8, Size) = last.unwrap();
                        prop_assert!(now - at < AGAIN && before == size && seen.abs_diff(level) <= 5);
                    }
                    _ => last = Some((now, level, size)),
                }
            }
        }
    }
}
