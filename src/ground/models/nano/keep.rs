//! What a look at one picture leaves, to be kept beside others and asked about later.

use super::Seen;
use crate::ground::Keep;

impl Keep for Seen {
    fn region(&self, index: usize, of: usize) -> &[f32] {
        share(&self.regions, index, index + 1, of)
    }

    fn part(&self, from: usize, to: usize, of: usize) -> Self {
        // Cells belong to canvases, and so do regions: the same share of both.
        let part = |all: &[f32]| share(all, from, to, of).to_vec();
        Self { regions: part(&self.regions), cells: part(&self.cells), places: part(&self.places) }
    }

    fn join(parts: &[&Self]) -> Self {
        let join = |of: fn(&Self) -> &[f32]| parts.iter().flat_map(|part| of(part)).copied().collect();
        Self { regions: join(|s| &s.regions), cells: join(|s| &s.cells), places: join(|s| &s.places) }
    }
}

/// The part of `all` that belongs to the regions `from..to` of `of`.
fn share(all: &[f32], from: usize, to: usize, of: usize) -> &[f32] {
    let at = |region: usize| all.len() * region / of.max(1);
    all.get(at(from)..at(to)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_come_apart_and_together_again() {
        // Two canvases of two regions with three features each, and four cells with two numbers.
        let numbers = |count: u8| (0..count).map(f32::from).collect::<Vec<_>>();
        let both = Seen { regions: numbers(12), cells: numbers(16), places: numbers(32) };
        let parts = [both.part(0, 2, 4), both.part(2, 4, 4)];
        assert_eq!(parts[1].regions, [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!((parts[1].cells[0], parts[1].places.len()), (8.0, 16));
        assert_eq!(both.region(2, 4), [6.0, 7.0, 8.0]);
        let again = Seen::join(&[&parts[0], &parts[1]]);
        assert_eq!((again.regions, again.cells, again.places), (both.regions, both.cells, both.places));
        let empty = Seen { regions: vec![], cells: vec![], places: vec![] };
        assert!(empty.region(0, 0).is_empty() && empty.part(0, 1, 1).cells.is_empty());
    }
}
