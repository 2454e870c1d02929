//! One camera's regions: which of this picture is which of the last, and what was answered about each.
//!
//! A thing usually gets several proposals; the surest stands for all that overlap it, and remembers the best answer among
//! them. Things move, so regions are followed from picture to picture; whether one has *changed* is judged against the
//! moment it was asked about.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    ground::{
        methods::regions::Bar,
        unit::{dot, normalise},
    },
    types::overlap,
};

/// A region and its successor overlap at least this much.
const OVERLAP: f32 = 0.3;
/// A region and its successor look at least this much alike (cosine of their features).
const ALIKE: f32 = 0.3;
/// Where pictures come seldom, who walks past overlaps nobody, not even themselves: what looks this much like a thing of the
/// picture before, is of its size, and came no further than this many of its sizes, is taken for it, and asked about anew.
const ALIKE_AFAR: f32 = 0.7;
const REACH: f32 = 1.2;
/// A region that looks less like it did when it was asked about has changed.
const UNCHANGED: f32 = 0.6;
/// A region that looks this much like it did when it was asked about is the very same: so would be the answer.
const EQUAL: f32 = 0.99;
/// As has one that has grown or shrunk more than this in one direction.
const GROWN: f32 = 2.0;
/// A region that continues none, but overlaps one that it looks like this much, takes its answers over: a second box of the
/// same thing.
const INHERIT: f32 = 0.5;
/// How long a region is remembered that is not seen any more; longer where pictures usually come less than twice in that
/// time. What is there after a longer gap may be another thing in the same place.
const FORGET: Duration = Duration::from_secs(1);
/// How smoothly a region's look and motion follow the proposals: they are noisy.
const FOLLOW: f32 = 0.5;
/// Where pictures usually come after more than this, nobody waits for another to see whether a new region is something.
const SELDOM: Duration = Duration::from_millis(100);

/// What the proposal network says of one picture; one entry a region in all slices.
#[derive(Debug, Clone, Copy)]
pub struct Proposed<'a> {
    /// Corners in fractions of the canvas.
    pub boxes: &'a [[f32; 4]],
    /// How sure it is of each, 0 to 1.
    pub objectness: &'a [f32],
    /// How each looks: unit vectors, all of one length.
    pub looks: &'a [Vec<f32>],
}

/// A region at the moment it was asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    corners: [f32; 4],
    look: Vec<f32>,
}

/// An answer about one region.
#[derive(Debug, Clone)]
pub struct Answer {
    /// How well it fits, 0 to 1.
    pub score: f32,
    /// When it was asked.
    pub at: Instant,
    seen: Arc<Seen>,
    /// Whose score it is: where the best of those that the region stands for lies, in parts of the region's sides from its
    /// upper left corner; `None` is the region itself.
    within: Option<[f32; 4]>,
}

/// A thing that is followed.
#[derive(Debug)]
pub struct Region {
    /// Where it is, in fractions of the canvas.
    pub corners: [f32; 4],
    /// How far it moves in a second, smoothed; nothing until it was followed once.
    motion: [f32; 2],
    /// When it was at `corners`.
    placed_at: Instant,
    /// When it was last taken for itself without overlapping itself.
    jumped_at: Option<Instant>,
    /// How it looks, smoothed.
    pub look: Vec<f32>,
    /// How sure the network is of it now.
    pub objectness: f32,
    /// Pictures it was seen on.
    pub pictures: u32,
    /// When it was first seen.
    pub born: Instant,
    seen_at: Instant,
    /// The proposal that it is on the picture looked at last; `None` if it is not on it.
    proposal: Option<usize>,
    /// One place a query; see [`Regions::set_queries`].
    answers: Vec<Option<Answer>>,
}

impl Region {
    /// Where it should be by now. What was not seen for longer than pictures usually take may have turned.
    fn expected(&self, now: Instant, usual: Duration) -> [f32; 4] {
        let since = now.saturating_duration_since(self.placed_at).min(usual).as_secs_f32();
        std::array::from_fn(|i| self.corners[i] + self.motion[i % 2] * since)
    }

    /// It is there now. Of two pictures that come at once nobody can tell how fast it is.
    fn moves(&mut self, corners: [f32; 4], now: Instant, usual: Duration) {
        let since = now.saturating_duration_since(self.placed_at).max(usual / 2).as_secs_f32();
        if since > 0.0 && self.pictures > 0 {
            let (before, after) = (centre(&self.corners), centre(&corners));
            // The first step is all that is known.
            let share = if self.pictures == 1 { 1.0 } else { FOLLOW };
            for axis in 0..2 {
                let speed = (after[axis] - before[axis]) / since;
                self.motion[axis] += share * (speed - self.motion[axis]);
            }
        }
        (self.corners, self.placed_at, self.seen_at) = (corners, now, now);
    }

    /// What was answered about it.
    pub fn answer(&self, query: usize) -> Option<&Answer> {
        self.answers.get(query)?.as_ref()
    }

    /// Whether it looks just as it did when it was asked about.
    pub fn equals(&self, answer: &Answer) -> bool {
        dot(&self.look, &answer.seen.look) >= EQUAL
    }

    /// Whether it has changed since it was asked about, or may be another by now.
    pub fn changed_since(&self, answer: &Answer) -> bool {
        if self.jumped_at.is_some_and(|at| at > answer.at) {
            return true;
        }
        let side = |c: &[f32; 4], axis: usize| (c[axis + 2] - c[axis]).max(1e-6);
        let grown = (0..2).map(|axis| side(&self.corners, axis) / side(&answer.seen.corners, axis));
        let mut grown = grown.map(|ratio| ratio.max(1.0 / ratio));
        dot(&self.look, &answer.seen.look) < UNCHANGED || grown.any(|ratio| ratio > GROWN)
    }
}

/// All regions of one camera.
#[derive(Debug, Default)]
pub struct Regions {
    known: Vec<Region>,
    /// The proposals of the picture looked at last.
    boxes: Vec<[f32; 4]>,
    /// For each proposal of the picture looked at last the one that stands for it: itself, a surer one, or none if it was
    /// not offered.
    leaders: Vec<Option<usize>>,
    /// When the last picture came, whether or not it was looked at, and how long after the one before they usually do.
    came_at: Option<Instant>,
    usual: Option<Duration>,
}

impl Regions {
    /// A picture came that looks like the one looked at last: what was on that is there still.
    pub fn still(&mut self, now: Instant) {
        self.reckon(now);
        let present = self.known.iter_mut().filter(|region| region.proposal.is_some());
        present.for_each(|region| (region.seen_at, region.motion) = (now, [0.0; 2]));
    }

    /// Takes a picture's proposals in; those below the bar's objectness are not offered to anybody and do not count, and those that
    /// could not both be reported are the same thing: of two that could, each must be remembered. `queries` is how many there are.
    pub fn observe(&mut self, proposed: Proposed<'_>, bar: Bar, queries: usize, now: Instant) {
        // Before anything is followed: what has been gone for too long must not come back.
        let kept = self.usual.map_or(FORGET, |usual| FORGET.max(usual * 2));
        self.known.retain(|region| now.saturating_duration_since(region.seen_at) <= kept);
        self.reckon(now);
        self.leaders = leaders(proposed, bar);
        proposed.boxes.clone_into(&mut self.boxes);
        let themselves: Vec<usize> =
            self.leaders.iter().enumerate().filter(|(i, leader)| **leader == Some(*i)).map(|(i, _)| i).collect();
        let owners = self.follow(proposed, &themselves, now);
        let (followed, usual) = (self.known.len(), self.usual.unwrap_or_default());
        self.known.iter_mut().for_each(|region| region.proposal = None);
        for (leader, owner) in themselves.into_iter().zip(owners) {
            let (corners, look) = (proposed.boxes[leader], &proposed.looks[leader]);
            let place = owner.unwrap_or_else(|| {
                self.known.push(self.begin(corners, look, queries, now));
                self.known.len() - 1
            });
            let region = &mut self.known[place];
            region.look.iter_mut().zip(look).for_each(|(old, new)| *old += FOLLOW * (new - *old));
            normalise(&mut region.look);
            let there = [region.corners, region.expected(now, usual)];
            if place < followed && there.iter().all(|there| overlap(&corners, there) < OVERLAP) {
                region.jumped_at = Some(now);
            }
            region.moves(corners, now, usual);
            (region.objectness, region.proposal) = (proposed.objectness[leader], Some(leader));
            region.pictures += 1;
        }
    }

    /// The regions on the picture looked at last.
    pub fn present(&self) -> impl Iterator<Item = &Region> {
        self.known.iter().filter(|region| region.proposal.is_some())
    }

    /// Enters the answers to `query`: a score for every proposal of the picture looked at last. A region gets the best of
    /// those it stands for.
    pub fn answered(&mut self, query: usize, scores: &[f32], now: Instant) {
        let mut best: Vec<(f32, usize)> = (0..self.leaders.len()).map(|proposal| (0.0, proposal)).collect();
        for (member, (leader, score)) in self.leaders.iter().zip(scores).enumerate() {
            // A score that is no number is no match, and is not more than any.
            if let Some(best) = leader.and_then(|leader| best.get_mut(leader)).filter(|best| *score > best.0) {
                *best = (*score, member);
            }
        }
        for region in &mut self.known {
            if let (Some(proposal), Some(place)) = (region.proposal, region.answers.get_mut(query)) {
                let seen = Arc::new(Seen { corners: region.corners, look: region.look.clone() });
                let (score, member) = best[proposal];
                let within = (member != proposal).then(|| parts(&self.boxes[member], &region.corners));
                *place = Some(Answer { score, at: now, seen, within });
            }
        }
    }

    /// What is remembered about `query`, as scores of the proposals of the picture looked at last; 0 where nothing is, and
    /// for proposals that another one stands for.
    pub fn remembered(&self, query: usize) -> Vec<f32> {
        let mut scores = vec![0.0; self.leaders.len()];
        for region in self.present() {
            if let (Some(proposal), Some(answer)) = (region.proposal, region.answer(query)) {
                scores[proposal] = answer.score;
            }
        }
        scores
    }

    /// Where what is remembered about `query` was found, as corners of the proposals of the picture looked at last: a
    /// region's score may be that of another box of the same thing, which has moved along with it.
    pub fn places(&self, query: usize) -> Vec<[f32; 4]> {
        let mut boxes = self.boxes.clone();
        for region in self.present() {
            let within = region.answer(query).and_then(|answer| answer.within);
            if let (Some(proposal), Some(within)) = (region.proposal, within) {
                boxes[proposal] = whole(&within, &region.corners);
            }
        }
        boxes
    }

    /// Whether something is on the picture looked at last that `query` was never asked about.
    pub fn is_open(&self, query: usize) -> bool {
        self.present().any(|region| region.answer(query).is_none())
    }

    /// Each place of `from` says which old query a new one was; `None` is a query that was not there.
    pub fn set_queries(&mut self, from: &[Option<usize>]) {
        for region in &mut self.known {
            let mut old = std::mem::take(&mut region.answers);
            let moved = from.iter().map(|place| place.and_then(|place| old.get_mut(place)?.take()));
            region.answers = moved.collect();
        }
    }

    /// Reckons how often pictures come; one that is told of twice came once.
    fn reckon(&mut self, now: Instant) {
        let before = self.came_at.replace(now);
        let interval =
            before.map(|before| now.saturating_duration_since(before)).filter(|interval| !interval.is_zero());
        if let Some(interval) = interval {
            self.usual = Some(self.usual.map_or(interval, |usual| (usual + interval) / 2));
        }
    }

    /// Whether pictures come so seldom that a new region should not have to wait for the next.
    pub fn come_seldom(&self) -> bool {
        self.usual.is_some_and(|usual| usual > SELDOM)
    }

    /// For each leader the known region it continues: pairs by overlap and likeness, the best first; then by likeness alone,
    /// for what moves further than its own size from picture to picture.
    fn follow(&self, proposed: Proposed<'_>, leaders: &[usize], now: Instant) -> Vec<Option<usize>> {
        let mut pairs = Vec::new();
        for (l, leader) in leaders.iter().enumerate() {
            for (k, region) in self.known.iter().enumerate() {
                let (corners, look) = (&proposed.boxes[*leader], &proposed.looks[*leader]);
                if let Some(worth) = self.continues(corners, look, region, now) {
                    pairs.push((worth, l, k));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut owners = vec![None; leaders.len()];
        let mut taken = vec![false; self.known.len()];
        for (_, l, k) in pairs {
            if owners[l].is_none() && !taken[k] {
                (owners[l], taken[k]) = (Some(k), true);
            }
        }
        owners
    }

    /// How surely a box that looks like this is a region by now; `None` if it is not. Where they overlap, it is above 0 and
    /// more than anywhere else.
    fn continues(&self, corners: &[f32; 4], look: &[f32], region: &Region, now: Instant) -> Option<f32> {
        let expected = region.expected(now, self.usual.unwrap_or_default());
        let (last, ahead) = (overlap(corners, &region.corners), overlap(corners, &expected));
        let afar = || {
            let reach = within_reach(corners, &expected) || within_reach(corners, &region.corners);
            reach && region.proposal.is_some() && self.come_seldom()
        };
        // Looks are compared last: that takes longest, and most boxes are nowhere near.
        if last.max(ahead) < OVERLAP && !afar() {
            return None;
        }
        let alike = dot(look, &region.look);
        // Where it should be is a guess, which needs more to go by.
        let common = if alike >= ALIKE_AFAR { last.max(ahead) } else { last };
        if common >= OVERLAP {
            return (alike >= ALIKE).then_some(common + alike);
        }
        (alike >= ALIKE_AFAR).then_some(alike - 2.0)
    }

    /// A region that continues none. One that lies upon another begins with its answers.
    fn begin(&self, corners: [f32; 4], look: &[f32], queries: usize, now: Instant) -> Region {
        let nearest = self.known.iter().map(|region| (overlap(&corners, &region.corners), region));
        let nearest = nearest.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(overlap, _)| *overlap >= INHERIT);
        // That something is there need not be seen twice.
        let pictures = nearest.map_or(0, |(_, region)| region.pictures);
        let twin = nearest.filter(|(_, region)| dot(look, &region.look) >= ALIKE);
        let answers = twin.map_or_else(|| vec![None; queries], |(_, region)| region.answers.clone());
        Region {
            corners,
            motion: [0.0; 2],
            placed_at: now,
            jumped_at: None,
            look: look.to_vec(),
            objectness: 0.0,
            pictures,
            born: now,
            seen_at: now,
            proposal: None,
            answers,
        }
    }
}

/// Whether two boxes are of one size and near to each other.
fn within_reach(a: &[f32; 4], b: &[f32; 4]) -> bool {
    let sides = |c: &[f32; 4]| [c[2] - c[0], c[3] - c[1]];
    let (a_sides, b_sides) = (sides(a), sides(b));
    let alike = |axis: usize| {
        let ratio = a_sides[axis] / b_sides[axis].max(1e-6);
        (1.0 / GROWN..=GROWN).contains(&ratio)
    };
    let ([ax, ay], [bx, by]) = (centre(a), centre(b));
    let size = (b_sides[0] * b_sides[1]).max(0.0).sqrt();
    alike(0) && alike(1) && (ax - bx).hypot(ay - by) <= REACH * size
}

fn centre(corners: &[f32; 4]) -> [f32; 2] {
    std::array::from_fn(|axis| f32::midpoint(corners[axis], corners[axis + 2]))
}

fn offered(proposed: Proposed<'_>, proposal: usize, least: f32) -> bool {
    proposed.objectness[proposal] >= least && proposed.boxes[proposal].iter().all(|v| v.is_finite())
}

/// For each proposal the one that stands for it: the surest of those that overlap.
fn leaders(proposed: Proposed<'_>, bar: Bar) -> Vec<Option<usize>> {
    let mut order: Vec<usize> = (0..proposed.boxes.len()).filter(|i| offered(proposed, *i, bar.objectness)).collect();
    order.sort_by(|a, b| proposed.objectness[*b].total_cmp(&proposed.objectness[*a]));
    let mut leading: Vec<usize> = Vec::new();
    let mut leaders = vec![None; proposed.boxes.len()];
    for proposal in order {
        let covers = |leader: &&usize| overlap(&proposed.boxes[**leader], &proposed.boxes[proposal]) > bar.nms_iou;
        leaders[proposal] = leading.iter().find(covers).copied();
        if leaders[proposal].is_none() {
            leaders[proposal] = Some(proposal);
            leading.push(proposal);
        }
    }
    leaders
}

/// Corners in parts of the sides of `of`, which has some, from its upper left corner.
fn parts(corners: &[f32; 4], of: &[f32; 4]) -> [f32; 4] {
    std::array::from_fn(|i| (corners[i] - of[i % 2]) / (of[i % 2 + 2] - of[i % 2]))
}

/// The reverse of [`parts`].
fn whole(parts: &[f32; 4], of: &[f32; 4]) -> [f32; 4] {
    std::array::from_fn(|i| of[i % 2] + parts[i] * (of[i % 2 + 2] - of[i % 2]))
}

#[cfg(test)]
#[path = "regions_tests.rs"]
mod tests;
